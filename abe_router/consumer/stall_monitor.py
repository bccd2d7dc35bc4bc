"""Renews leases and reports the handler while the event loop is blocked, from a thread of its own.

States of the thread, of which a process has one:

- absent: no consumer is monitored.
- idle: nothing is in flight; it waits for the first delivery.
- watching: something is in flight. Every tick it asks the event loop for an answer.
- stalled: the event loop has not answered for STALLED_TICKS. It renews the leases that are due, and reports
  once where the event loop stands. After the longest timeout of the routes the event loop hangs.

Transitions: absent -> idle, when the first consumer comes; idle -> watching, when a delivery comes in flight;
watching -> stalled -> watching, as answers fail to come and come; any -> idle or absent, as the work or the
consumers end.

Invariants: the thread changes nothing that the event loop reads. It takes no lock that a handler may hold, so
log lines are written by threads of their own. It reads what is in flight while the event loop stands. If the
event loop continues meanwhile, what was read may be out of date, and the backend refuses what is settled or
lost. A fork does not copy the thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from types import FrameType

from abe_router.backend import Subscription
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.pool import route_called_in
from abe_router.routing.route import Route

_log = logging.getLogger(__name__)

#: The tick is this part of the shortest lease, within these bounds, in seconds.
TICK, SHORTEST_TICK, LONGEST_TICK = 1 / 12, 0.01, 0.25
#: After so many ticks without an answer the event loop counts as blocked.
STALLED_TICKS = 2
#: How long the event loop stands before that is reported, in seconds.
REPORT_AFTER = 1.0


class _Leases:
    """The leases of one consumer, as the thread sees them."""

    def __init__(
        self, route: Route, subscription: Subscription, in_flight: InFlight, *, renews: bool
    ) -> None:
        self.route, self.in_flight = route, in_flight
        self._subscription, self._renews = subscription, renews
        self._renewed_at = -inf
        #: Whether an error was logged in this stall.
        self.failed = False

    def renew(self, now: float, *, is_hanging: bool) -> None:
        """Renew what is due; `now` is the loop's time."""
        began_at = max(self.in_flight.leases.began_at, self._renewed_at)
        if not self._renews or now - began_at < self.route.lease / 3:
            return
        try:
            if deliveries := self.in_flight.renewable(now, is_hanging=is_hanging):
                self._subscription.renew(deliveries)
            self._renewed_at = now
        except Exception as error:  # noqa: BLE001  tried again at the next tick, and the others are renewed
            if not self.failed:
                self.failed = True
                text = "%s: leases not renewed while the event loop is blocked: %s"
                _log_apart(text, self.route.name, error)


class StallMonitor:
    """Keeps the leases of the consumers of one event loop while the loop is blocked.

    Its methods belong to the event loop. It costs the loop one callback a tick while anything is in flight.
    """

    def __init__(self) -> None:
        #: How often the event loop was blocked for REPORT_AFTER, and for how many seconds altogether.
        self.stalls, self.stalled_seconds = 0, 0.0
        self._monitored: dict[_Leases, None] = {}
        self._wake = threading.Event()
        #: The thread, None while no consumer is monitored.
        self.thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        #: What to add to the time of the monotonic clock for that of the loop.
        self._offset = 0.0

    def wake(self) -> None:
        """Begin to watch: a delivery came in flight."""
        self._wake.set()

    @contextmanager
    def monitoring(
        self, route: Route, subscription: Subscription, in_flight: InFlight, *, renews: bool
    ) -> Iterator[None]:
        """Keep the leases of a consumer within this; without `renews`, only report what blocks the loop."""
        leases = _Leases(route, subscription, in_flight, renews=renews)
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._set_offset(self._loop)
        self._monitored[leases] = None
        if self.thread is None:
            self._start()
        try:
            yield
        finally:
            del self._monitored[leases]
            if not self._monitored:
                self.thread = None
            self._wake.set()

    def _start(self) -> None:
        thread = self.thread = threading.Thread(target=self._run, name="stall-monitor", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self.thread = None  # the next consumer tries again
            _log.error("leases are not renewed while the event loop is blocked: %s", error)

    def _set_offset(self, loop: asyncio.AbstractEventLoop) -> None:
        self._offset = loop.time() - time.monotonic()

    def _run(self) -> None:
        loop, own = self._loop, threading.current_thread()
        while loop is not None and self.thread is own:
            self._wake.clear()
            busy = self._busy()
            if not busy:
                if self.thread is own:
                    self._wake.wait()
                continue
            tick = min(max(min(each.route.lease for each in busy) * TICK, SHORTEST_TICK), LONGEST_TICK)
            try:
                self._ask(loop, tick)
            except RuntimeError:  # the loop is closed
                return
            time.sleep(tick)

    def _busy(self) -> list[_Leases]:
        while True:
            with suppress(RuntimeError):  # consumers came or went meanwhile
                return [each for each in tuple(self._monitored) if each.in_flight.busy.is_set()]

    def _ask(self, loop: asyncio.AbstractEventLoop, tick: float) -> None:
        """Ask the event loop for an answer, and act until it comes. Raise RuntimeError if it is closed."""
        answered = threading.Event()
        loop.call_soon_threadsafe(self._answer, loop, answered)
        unanswered, blocked, reported, last = 0, 0.0, False, time.monotonic()
        while not answered.wait(tick):
            now = time.monotonic()
            # When the whole process stood still, this thread slept too long, and the loop is not to blame.
            step, last = min(now - last, 2 * tick), now
            blocked += step
            unanswered += 1
            if unanswered < STALLED_TICKS:
                continue
            busy = self._busy()
            # Whichever route blocks the event loop, its handler has had its time then.
            is_hanging = blocked >= max((each.route.timeout for each in busy), default=0.0)
            for each in busy:
                each.renew(now + self._offset, is_hanging=is_hanging)
            if reported:
                self.stalled_seconds += step
            elif blocked >= REPORT_AFTER:
                reported = True
                self.stalls, self.stalled_seconds = self.stalls + 1, self.stalled_seconds + blocked
                with suppress(Exception):  # the event loop may continue meanwhile
                    _log_apart("%s", describe_stall(self._loop_thread, blocked))
        if blocked:
            for each in self._busy():
                each.failed = False

    def _answer(self, loop: asyncio.AbstractEventLoop, answered: threading.Event) -> None:
        self._set_offset(loop)
        answered.set()


def _log_apart(text: str, *values: object) -> None:
    """Log a warning in a thread of its own: what blocks the event loop may hold a lock of `logging`."""
    with suppress(RuntimeError):  # no thread starts
        threading.Thread(target=partial(_log.warning, text, *values), daemon=True).start()


def describe_stall(thread: int, seconds: float) -> str:
    """Return a log line about an event loop, by the thread it runs in, that is blocked for so long.

    The line is the innermost one in the file of the handler. When no handler is called, such as in a task
    that a handler has made, it is the innermost one of all. Raise KeyError when there is no such thread.
    """
    frames: list[FrameType] = []
    frame: FrameType | None = sys._current_frames()[thread]  # noqa: SLF001  no other function shows a thread
    route: Route | None = None
    while frame is not None and route is None:
        frames.append(frame)
        route, frame = route_called_in(frame), frame.f_back
    if route is None:
        return (
            f"the event loop has been blocked for {seconds:.1f} s at {_position(frames[0])}; "
            "call what blocks in a thread, or await"
        )
    own = [each for each in frames if _is_in_file_of(route, each)]
    if not own:
        return f"route {route.name} has blocked the event loop for {seconds:.1f} s at {_position(frames[0])}"
    return (
        f"route {route.name}: handler {route.handler.path} has blocked the event loop for {seconds:.1f} s "
        f"at {_position(own[0])}; use a plain (not async) handler or await"
    )


def _is_in_file_of(route: Route, frame: FrameType) -> bool:
    source = route.handler.source
    return source is not None and os.path.realpath(frame.f_code.co_filename) == str(source)


def _position(frame: FrameType) -> str:
    """Return file and line, relative to the current folder if the file is below it."""
    path = frame.f_code.co_filename
    with suppress(OSError, ValueError):  # the folder was removed, or is on another drive
        relative = os.path.relpath(path)
        path = path if relative.startswith(os.pardir) else relative
    return f"{path}:{frame.f_lineno}"
