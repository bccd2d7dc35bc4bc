"""Threads for plain handlers. A handler that never returns does not delay the exit of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

_Call = tuple[Future[Any], Callable[[], Any]]


class Threads(Executor):
    """Runs calls in up to `limit` daemon threads, which are started on demand and reused.

    At its exit, the interpreter waits for the threads of a ThreadPoolExecutor, but not for daemon threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._made, self._closed = limit, 0, False
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in a thread; raise RuntimeError after `shutdown`, or if no thread starts."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads are shut down")
            if not self._idle.acquire(blocking=False) and self._made < self._limit:
                self._make_thread()
            self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Accept no more calls; the threads end after the calls that they have. Does not wait. Idempotent."""
        with self._lock:
            ending, self._closed = not self._closed, True
            while cancel_futures:
                try:
                    call = self._calls.get_nowait()
                except Empty:
                    break
                if call is not None:
                    call[0].cancel()
            for _ in range(self._made if ending or cancel_futures else 0):
                self._calls.put(None)

    def _make_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"handler-{self._made + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._made:  # otherwise the call waits for an existing thread
                raise
        else:
            self._made += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001  the caller gets it
                    future.set_exception(_acceptable(error))
                else:
                    future.set_result(result)
            del call, future, function  # keep nothing alive while waiting
            self._idle.release()


def _acceptable(error: BaseException) -> BaseException:
    """Return an error that an asyncio future accepts: it refuses StopIteration (PEP 479)."""
    if not isinstance(error, StopIteration):
        return error
    acceptable = RuntimeError("it raised StopIteration")
    acceptable.__cause__ = error
    return acceptable
