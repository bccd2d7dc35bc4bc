"""Threads for plain handlers. A handler that never returns does not delay the exit of the process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

_log = logging.getLogger(__name__)

#: Most threads of abandoned calls that are replaced, so that calls that never return use bounded memory.
MAX_ABANDONED = 256


class Threads(Executor):
    """Runs calls in up to `limit` daemon threads, which are started on demand and reused.

    At its exit, the interpreter waits for the threads of a ThreadPoolExecutor, but not for daemon threads.

    To cancel the future of a call that runs abandons the call: its thread does not count towards the limit
    any more, so that another can take its place, and ends if the call returns. With MAX_ABANDONED of them,
    further calls wait.
    """

    def __init__(self, limit: int, name: str = "handler") -> None:
        self._limit, self._name, self._closed = limit, name, False
        self._made = 0  # including those of abandoned calls
        self._abandoned = 0
        self._numbers = 0
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in a thread; raise RuntimeError after `shutdown`, or if no thread starts."""
        call = _Call(lambda: fn(*args, **kwargs), self._abandon)
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads are shut down")
            if not self._idle.acquire(blocking=False) and self._may_make:
                self._make_thread()
            self._calls.put(call)
        return call

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
                    call.cancel_waiting()
            for _ in range(self._made if ending or cancel_futures else 0):
                self._calls.put(None)

    @property
    def _may_make(self) -> bool:
        """Whether another thread may be made; the lock is held."""
        return self._made - self._abandoned < self._limit and self._abandoned <= MAX_ABANDONED

    def _make_thread(self) -> None:
        name = f"{self._name}-{self._numbers + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if self._made == self._abandoned:  # otherwise the call waits for an existing thread
                raise
        else:
            self._made += 1
            self._numbers += 1

    def _abandon(self, call: _Call) -> None:
        """Let another thread take the place of one whose call nothing waits for any more."""
        with self._lock:
            if call.done() or call.abandoned:
                return
            call.abandoned = True
            self._abandoned += 1
            if not self._calls.empty() and self._may_make:
                with suppress(RuntimeError):  # no thread starts: the calls wait for an existing one
                    self._make_thread()
            elif self._abandoned == MAX_ABANDONED + 1:
                _log.error("%s: %d calls never returned: further ones wait", self._name, self._abandoned)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            if call.abandoned:
                with self._lock:
                    self._abandoned -= 1
                    if self._made - self._abandoned > self._limit:
                        self._made -= 1
                        return
            del call  # keep nothing alive while waiting
            self._idle.release()


class _Call(Future[Any]):
    """A call of a function, and what it comes to."""

    def __init__(self, function: Callable[[], Any], abandon: Callable[[_Call], None]) -> None:
        super().__init__()
        self._function: Callable[[], Any] | None = function
        self._abandon = abandon
        #: Whether it was cancelled while it ran.
        self.abandoned = False

    def cancel(self) -> bool:
        """Cancel the call if it waits, and return True; abandon it if it runs."""
        if super().cancel():
            return True
        self._abandon(self)
        return False

    def cancel_waiting(self) -> None:
        """Cancel a call that no thread has."""
        super().cancel()

    def run(self) -> None:
        """Make the call, unless it was cancelled."""
        function, self._function = self._function, None
        if function is None or not self.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  the caller gets it
            self.set_exception(_acceptable(error))
        else:
            self.set_result(result)


def _acceptable(error: BaseException) -> BaseException:
    """Return an error that an asyncio future accepts and a coroutine that awaits it can catch."""
    if not isinstance(
        error, StopIteration | GeneratorExit
    ):  # PEP 479; to throw the latter closes a coroutine
        return error
    acceptable = RuntimeError(f"it raised {type(error).__name__}")
    acceptable.__cause__ = error
    return acceptable
