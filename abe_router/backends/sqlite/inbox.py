"""What wakes the thread of a backend: requests, and commits of other processes."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from abe_router.backends.sqlite.operations import Request

#: A change of a file's metadata, such as its time (inotify(7)). A write to the log is no such change. It
#: would come too early, because a commit is visible only some time after it.
_IN_ATTRIB = 0x4


class LogWatch:
    """Notices that the write-ahead log was touched, as each process does after a commit that others wait for.

    `fd` can be read then. It is -1 where files cannot be watched, and before `follow`.
    """

    def __init__(self) -> None:
        self.fd = -1
        self._watched = -1
        self._libc: Any = None

    def follow(self, log: Path) -> None:
        """Watch the log that is at the path now, and no other one."""
        if sys.platform != "linux":
            return
        if self._libc is None:
            from ctypes import CDLL  # it takes milliseconds, and a mere publisher does not need it

            self._libc = CDLL(None)
            self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd >= 0:
            watched = self._libc.inotify_add_watch(self.fd, os.fsencode(log), _IN_ATTRIB)
            if self._watched not in (-1, watched):
                self._libc.inotify_rm_watch(self.fd, self._watched)
            self._watched = watched

    def was_touched(self) -> bool:
        """Return whether the log was touched since the last call."""
        if self.fd >= 0:
            with suppress(BlockingIOError):
                return bool(os.read(self.fd, 4096))
        return False

    def close(self) -> None:
        """Stop watching."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Inbox:
    """The requests on their way to the thread. Any thread may call `put`; that thread calls the rest.

    The lock keeps a `put` that wakes the thread from writing to a pipe that is closed meanwhile, whose number
    another file may have by then.
    """

    def __init__(self, watch: LogWatch) -> None:
        self._requests: deque[Sequence[Request[Any]] | None] = deque()
        self._watch = watch
        self._is_waiting, self._is_closed = False, False
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._watching_poll: select.poll | None = None

    def __bool__(self) -> bool:
        return bool(self._requests)

    def put(self, requests: Sequence[Request[Any]] | None) -> bool:
        """Add requests, or None as the last. Return False, and add nothing, once it is closed."""
        with self._lock:
            if self._is_closed:
                return False
            self._requests.append(requests)
            if self._is_waiting:
                with suppress(BlockingIOError):  # the pipe is full, so the thread is woken already
                    os.write(self._writer, b"\0")
            return True

    def wait(self, timeout: float, *, watching: bool) -> None:
        """Wait for requests, or for `timeout` seconds; when `watching`, also for a touch of the log."""
        poll = self._with_watch() if watching else self._poll
        self._is_waiting = True
        # Requests may have come before the flag was set.
        ready = poll.poll(0 if self._requests else timeout * 1000)
        self._is_waiting = False
        if any(fd == self._reader for fd, _ in ready):
            os.read(self._reader, 4096)

    def _with_watch(self) -> select.poll:
        if self._watching_poll is None and self._watch.fd >= 0:
            self._watching_poll = select.poll()
            self._watching_poll.register(self._reader, select.POLLIN)
            self._watching_poll.register(self._watch.fd, select.POLLIN)
        return self._watching_poll or self._poll

    def take(self) -> Sequence[Request[Any]] | None:
        """Return what was put first, and remove it."""
        return self._requests.popleft()

    def close(self) -> list[Request[Any]]:
        """Close the pipe; return the requests that came after the last."""
        with self._lock:
            self._is_closed = True
            os.close(self._reader)
            os.close(self._writer)
            return [request for requests in self._requests for request in requests or ()]
