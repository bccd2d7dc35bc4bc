"""Writes log lines in a thread, so that a stream that accepts nothing blocks no handler and no event loop.

A pipe that is full blocks whatever writes to it: the log driver of a container stands still, or a pager waits
for a key. Lines are queued up to a bound. Beyond it they are dropped and counted, and the number is logged
once the stream accepts lines again.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

#: Longest queue, in characters; a line that is longer is kept if it is alone.
MAX_QUEUED = 4 * 1024 * 1024
#: How long the end of the process waits for the stream, in seconds.
FLUSH_TIME = 0.3


class WriterHandler(logging.Handler):
    """A handler of `logging` that passes lines to a thread, which writes them to `stream` in their order.

    It writes to a copy of the stream's file descriptor, so that a handler may close `sys.stderr`. In a forked
    child, which has no such thread, it writes at once.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        stream.flush()
        self._fd, self._pid = os.dup(stream.fileno()), os.getpid()
        self._queue: deque[str] = deque()
        self._queued = self._dropped = 0
        self._writing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record; never block and never raise."""
        try:
            line = self.format(record) + "\n"
            if os.getpid() != self._pid:
                self._write(line)
                return
            with self._changed:
                if self._queue and self._queued + len(line) > MAX_QUEUED:
                    self._dropped += 1
                    return
                self._queue.append(line)
                self._queued += len(line)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        except Exception:  # noqa: BLE001  what is logged must not break what logs it
            with suppress(Exception):
                self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are written, FLUSH_TIME at most."""
        if os.getpid() != self._pid or threading.current_thread() is self._thread:
            return
        until = time.monotonic() + FLUSH_TIME
        with self._changed:
            while (self._queue or self._writing) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._queue:
                    self._changed.wait()
                text = "".join(self._queue)
                self._queue.clear()
                self._queued, self._writing = 0, True
                if self._dropped:  # they came after all lines of the queue
                    text += self._drop_notice()
            if not self._write(text):
                with self._changed:
                    self._dropped += text.count("\n")

    def _drop_notice(self) -> str:
        record = logging.LogRecord(
            "abe_router", logging.WARNING, __file__, 0, "%d log lines dropped", (self._dropped,), None
        )
        self._dropped = 0
        return self.format(record) + "\n"

    def _write(self, text: str) -> bool:
        """Write a text; return whether that succeeded."""
        left = memoryview(text.encode(errors="backslashreplace"))
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # another process has made the stream non-blocking
                select.select([], [self._fd], [])
            except OSError:  # the reader has left, or the disk is full
                return False
        return True


def make_handler(stream: TextIO) -> logging.Handler:
    """Return a handler for a stream; one without a file descriptor, which cannot block, needs no thread."""
    try:
        return WriterHandler(stream)
    except (OSError, ValueError, AttributeError):
        return logging.StreamHandler(stream)
