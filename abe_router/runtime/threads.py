"""Threads for plain handlers; one that never returns holds up no exit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

_Call = tuple[Future[Any], Callable[[], Any]]


class Threads(Executor):
    """Runs calls in up to `limit` daemon threads, which are made as they are needed and stay.

    A ThreadPoolExecutor has the interpreter wait at its end for calls that never return.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._made, self._closed = limit, 0, False
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a function called; raise RuntimeError after `shutdown`, and when there can be no thread."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads are shut down")
            if not self._idle.acquire(blocking=False) and self._made < self._limit:
                self._make_thread()
            self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Take no more calls, and let the threads end after what they have; waits for none. Idempotent."""
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
            if not self._made:  # else the call waits for one of those there are
                raise
        else:
            self._made += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001  it is the caller's
                    future.set_exception(_bearable(error))
                else:
                    future.set_result(result)
            del call, future, function  # nothing is kept alive while this waits
            self._idle.release()


def _bearable(error: BaseException) -> BaseException:
    """Return an error that a future of the event loop can hold, which it cannot a StopIteration (PEP 479)."""
    if not isinstance(error, StopIteration):
        return error
    bearable = RuntimeError("it raised StopIteration")
    bearable.__cause__ = error
    return bearable
