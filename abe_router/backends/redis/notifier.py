"""Wakes waiters when their streams get new entries.

One connection waits for all streams at once, with a plain XREAD. That delivers nothing to any group, so the
wait may be interrupted, or its reply lost, at any time.

States of the wait, which `run` goes through in turn:

- *idle*: no stream has a waiter. The first `wait` ends it.
- *blocked* (`_blocked`): an XREAD names the streams of all waiters. It ends with an entry, after BLOCK
  seconds, when the connection breaks, or by CLIENT UNBLOCK over the other connection. That is sent when a
  waiter comes whose stream the XREAD does not name.
- *gathering*: the waiters of the streams that have entries were woken. Most of them read and wait again
  within a moment, so the next XREAD is sent when they have returned (`_away` is empty), or after _RETURN.

Invariants:

- A waiter is registered under its stream from `wait` until it is woken or cancelled, also while no fetch
  waits.
- A waiter whose position is behind the newest entry is woken, at the latest, by the XREAD after its `wait`.
- A pipelined read is sent only right behind an XREAD, so its reply comes when the wait ends.
- When the connection breaks, all waiters are woken and look for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Protocol

from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import order
from abe_router.errors import BackendError, BackendUnavailable

#: Longest wait of one XREAD, in seconds; it only bounds how long a dead connection goes unnoticed.
BLOCK = 5.0
#: Least time between two XREADs, in seconds for each stream they name. To name all streams costs about a
#: tenth of it, so many quiet streams cannot make the few busy ones expensive.
_PACE = 1e-5
#: Number of streams from which on an XREAD is interrupted less often than that to name more of them. What the
#: server takes to name the streams and to forget them again grows faster than their number.
_MANY = 2500
#: How many times as long the XREAD is left as it is for waiters that can wait, but not longer than so many
#: seconds unless it would be anyway.
_PATIENT, _LONGEST = 10, 0.5
#: How long, in seconds, woken waiters have to read and return before the next XREAD goes out without them.
_RETURN = 0.002
#: Turns of the event loop until what a pipelined read brought reaches its handler.
_TURNS = 4
#: Most waiters that are remembered as woken last.
_REMEMBERED = 8
#: Time between two attempts to interrupt the XREAD while the other connection is down, in seconds.
_RETRY = 0.1


class Waiter(Protocol):
    """Waits for an entry of `stream` after `position`."""

    @property
    def stream(self) -> str: ...

    @property
    def position(self) -> bytes: ...

    def wake(self) -> None:
        """Take note of a new entry."""


class Notifier:
    """Waits on `connection`, which nothing else uses, and interrupts that wait over `other`."""

    def __init__(self, connection: Connection, other: Connection) -> None:
        self._connection, self._other = connection, other
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[str, set[Waiter]] = {}
        self._changed = asyncio.Event()
        self._blocked = False
        self._armed_at = 0.0
        self._interrupt: asyncio.TimerHandle | None = None
        self._interrupt_at = 0.0
        self._away: set[Waiter] = set()
        self._woken: set[Waiter] = set()
        self._pipelined: dict[Waiter, Callable[[Connection], None]] = {}
        self._returned = asyncio.Event()

    def wait(self, waiter: Waiter, *, patient: bool = False) -> None:
        """Wake the waiter once when its stream has an entry after its position.

        A `patient` one has other work meanwhile, so the XREAD is interrupted less often to name its stream.
        """
        self._waiters.setdefault(waiter.stream, set()).add(waiter)
        self._away.discard(waiter)
        if not self._away:
            self._returned.set()
        self._changed.set()
        if self._blocked:
            pause = _PACE * len(self._waiters) * (1 + len(self._waiters) / _MANY)
            if patient:
                pause = max(pause, min(_PATIENT * pause, _LONGEST))
            self._interrupt_by(self._armed_at + pause)

    def _interrupt_by(self, at: float) -> None:
        """Interrupt the XREAD at a time, unless that is to happen sooner."""
        if self._interrupt:
            if self._interrupt_at <= at:
                return
            self._interrupt.cancel()
        self._interrupt, self._interrupt_at = self._loop.call_at(at, self.unblock), at

    def cancel(self, waiter: Waiter) -> None:
        """Do not wake the waiter any more."""
        if waiters := self._waiters.get(waiter.stream):
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[waiter.stream]

    def is_waiting(self, waiter: Waiter) -> bool:
        """Say whether the waiter is still to be woken."""
        return waiter in self._waiters.get(waiter.stream, ())

    def pipeline(self, waiter: Waiter, send: Callable[[Connection], None]) -> None:
        """Call `send` right behind the XREAD, this one or the next; the reply comes when the wait ends.

        It is ignored for waiters that were not woken last: most likely they are not next.
        """
        if self._blocked and waiter in self._woken and self.is_waiting(waiter):
            send(self._connection)
        elif waiter in self._woken:
            self._pipelined[waiter] = send

    def notify(self, streams: Iterable[str]) -> None:
        """Wake the waiters of the streams: an append to them was just sent."""
        for stream in streams:
            for waiter in self._waiters.pop(stream, ()):
                self._away.add(waiter)
                waiter.wake()

    def notify_all(self) -> None:
        """Wake all waiters, to look for themselves."""
        self.notify(tuple(self._waiters))

    @property
    def up(self) -> bool:
        """Whether the connection that waits is up."""
        return self._connection.up

    async def run(self) -> None:
        """Wait and wake, until cancelled."""
        while True:
            try:
                await self._connection.open()
                await self._wait()
            except BackendUnavailable:
                self.notify_all()  # a fetch that waits learns that the server cannot be reached
            except BackendError:
                # One stream that this user may not read fails the XREAD of all. Until then all poll.
                self.notify_all()
                await asyncio.sleep(1.0)

    async def _wait(self) -> None:
        while not self._waiters:
            self._changed.clear()
            await self._changed.wait()
        streams = list(self._waiters)
        positions = [_lowest(waiters) for waiters in self._waiters.values()]
        self._away.clear()
        self._returned.clear()
        self._armed_at = self._loop.time()
        self._blocked = True
        try:
            waiting = self._connection.send(
                "XREAD", "COUNT", 1, "BLOCK", int(BLOCK * 1000), "STREAMS", *streams, *positions
            )
            pipelined, self._pipelined = self._pipelined, {}
            for waiter, send in pipelined.items():
                if self.is_waiting(waiter):
                    send(self._connection)
            answer = await waiting
        finally:
            self._blocked = False
            if self._interrupt:
                self._interrupt.cancel()
                self._interrupt = None
        if answer:
            # Pipelined reads were answered together with the XREAD. Their handlers run first, and their
            # waiters wait again with a new position, so they are not woken below.
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            self._woken.clear()
        for stream, entries in answer or ():
            self._wake(stream.decode(), order(entries[0][0]))
        if self._away:
            await self._gather()

    def _wake(self, stream: str, newest: tuple[int, int]) -> None:
        for waiter in tuple(self._waiters.get(stream, ())):
            if len(self._woken) < _REMEMBERED:
                self._woken.add(waiter)
            if order(waiter.position) < newest:
                self.cancel(waiter)
                self._away.add(waiter)
                waiter.wake()

    async def _gather(self) -> None:
        """Give woken waiters a moment: most of them wait again at once, and then one XREAD is enough."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETURN):
                await self._returned.wait()
        if (pause := self._next_wait() - self._loop.time()) > 0.001:
            await asyncio.sleep(pause)

    def _next_wait(self) -> float:
        return self._armed_at + _PACE * len(self._waiters)

    def unblock(self) -> None:
        """Make the server answer the XREAD now, so that the next one names the streams of all waiters."""
        if not self._blocked:
            return
        try:
            answer = self._other.send("CLIENT", "UNBLOCK", self._connection.client_id)
        except BackendUnavailable:
            self._retry_after(_RETRY)
        else:
            answer.add_done_callback(self._unblocked)

    def _retry_after(self, seconds: float) -> None:
        self._interrupt_at = self._loop.time() + seconds
        self._interrupt = self._loop.call_later(seconds, self.unblock)

    def _unblocked(self, answer: asyncio.Future[int]) -> None:
        if self._blocked and (answer.cancelled() or answer.exception() or not answer.result()):
            # The two connections race: CLIENT UNBLOCK arrived before the server had begun to wait.
            self._retry_after(_RETURN)


def _lowest(waiters: Collection[Waiter]) -> bytes:
    if len(waiters) == 1:  # as nearly always
        (waiter,) = waiters
        return waiter.position
    return min((waiter.position for waiter in waiters), key=order)
