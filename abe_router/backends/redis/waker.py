"""Wakes whoever rests when there is something new in a stream.

One connection waits for all streams at once, with a plain XREAD: that hands nothing to anybody, so it may
be interrupted, or its answer lost, at any time. A source rests from the moment on that it knows where its
group has got to, whether or not a fetch is waiting, and waiting costs nothing until something happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from abe_router.backends.redis.entry import order
from abe_router.backends.redis.line import Line
from abe_router.errors import BackendError, BackendUnavailable

#: Longest wait of one XREAD, in seconds; it only bounds how long a dead connection goes unnoticed.
BLOCK = 5.0
#: Least time between two XREADs, in seconds for each stream named in them: naming all of them anew costs
#: about a tenth of it, so that many quiet streams cannot make the few busy ones expensive.
_PACE = 1e-5
#: How long, in seconds, those who were woken have to read and come back before the XREAD goes out without.
_RETURN = 0.002
#: Turns of the loop that it takes what was read behind a wait to get to its handler.
_TURNS = 4
#: Most sources that are remembered as woken last.
_REMEMBERED = 8
#: Time between two tries to interrupt the XREAD while the other connection is down, in seconds.
_RETRY = 0.1


class Resting(Protocol):
    """Someone to wake when `stream` has an entry after `position`."""

    @property
    def stream(self) -> str: ...

    @property
    def position(self) -> bytes: ...

    def stir(self) -> None:
        """Be woken."""


class Waker:
    """Waits on `line`, which no one else may use, and interrupts that wait over `other`."""

    def __init__(self, line: Line, other: Line) -> None:
        self._line, self._other = line, other
        self._loop = asyncio.get_running_loop()
        self._resting: dict[str, set[Resting]] = {}
        self._changed = asyncio.Event()
        self._blocked = False
        self._armed_at = 0.0
        self._poke: asyncio.TimerHandle | None = None
        self._away: set[Resting] = set()
        self._woken: set[Resting] = set()
        self._behind: dict[Resting, Callable[[Line], None]] = {}
        self._returned = asyncio.Event()

    def rest(self, source: Resting) -> None:
        """Mark the source as new when its stream has an entry after its position."""
        self._resting.setdefault(source.stream, set()).add(source)
        self._away.discard(source)
        if not self._away:
            self._returned.set()
        self._changed.set()
        if self._blocked and self._poke is None:
            self._poke = self._loop.call_at(self._next_wait(), self.unblock)

    def forget(self, source: Resting) -> None:
        """Let the source be."""
        if sources := self._resting.get(source.stream):
            sources.discard(source)
            if not sources:
                del self._resting[source.stream]

    def rests(self, source: Resting) -> bool:
        """Say whether the source waits to be woken."""
        return source in self._resting.get(source.stream, ())

    def behind(self, source: Resting, send: Callable[[Line], None]) -> None:
        """Have something sent behind the wait, this one or the next, so that it is done when the wait ends.

        Not for those who were not woken last: most likely they are not next.
        """
        if self._blocked and source in self._woken and self.rests(source):
            send(self._line)
        elif source in self._woken:
            self._behind[source] = send

    def ring(self, streams: Iterable[str]) -> None:
        """Wake those who rest on one of the streams: it is about to get something new."""
        for stream in streams:
            for source in self._resting.pop(stream, ()):
                self._away.add(source)
                source.stir()

    def ring_all(self) -> None:
        """Wake everyone, to look for themselves."""
        self.ring(tuple(self._resting))

    @property
    def up(self) -> bool:
        """Whether anyone can be woken."""
        return self._line.up

    async def run(self) -> None:
        """Wait and wake, until cancelled."""
        while True:
            try:
                await self._line.open()
                await self._wait()
            except BackendUnavailable:
                self.ring_all()  # whoever has someone waiting finds out how things stand
            except BackendError:
                # One stream that may not be read spoils the wait for all; until then everyone looks anew.
                self.ring_all()
                await asyncio.sleep(1.0)

    async def _wait(self) -> None:
        while not self._resting:
            self._changed.clear()
            await self._changed.wait()
        streams = list(self._resting)
        positions = [_lowest(sources) for sources in self._resting.values()]
        self._away.clear()
        self._returned.clear()
        self._armed_at = self._loop.time()
        self._blocked = True
        try:
            waiting = self._line.send(
                "XREAD", "COUNT", 1, "BLOCK", int(BLOCK * 1000), "STREAMS", *streams, *positions
            )
            behind, self._behind = self._behind, {}
            for source, send in behind.items():
                if self.rests(source):
                    send(self._line)
            answer = await waiting
        finally:
            self._blocked = False
            if self._poke:
                self._poke.cancel()
                self._poke = None
        if answer:
            # What was read behind the wait came with it. Whoever has it is not to be woken, and goes first.
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            self._woken.clear()
        for stream, entries in answer or ():
            self._wake(stream.decode(), order(entries[0][0]))
        if self._away:
            await self._gather()

    def _wake(self, stream: str, newest: tuple[int, int]) -> None:
        for source in tuple(self._resting.get(stream, ())):
            if len(self._woken) < _REMEMBERED:
                self._woken.add(source)
            if order(source.position) < newest:
                self.forget(source)
                self._away.add(source)
                source.stir()

    async def _gather(self) -> None:
        """Wait a moment for those who were woken: most come back at once, and then one XREAD does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETURN):
                await self._returned.wait()
        if (pause := self._next_wait() - self._loop.time()) > 0.001:
            await asyncio.sleep(pause)

    def _next_wait(self) -> float:
        return self._armed_at + _PACE * len(self._resting)

    def unblock(self) -> None:
        """Have the server answer now, so that the next XREAD names everyone who rests."""
        if not self._blocked:
            return
        try:
            answer = self._other.send("CLIENT", "UNBLOCK", self._line.client_id)
        except BackendUnavailable:
            self._poke = self._loop.call_later(_RETRY, self.unblock)
        else:
            answer.add_done_callback(self._unblocked)

    def _unblocked(self, answer: asyncio.Future[int]) -> None:
        if self._blocked and (answer.cancelled() or answer.exception() or not answer.result()):
            # The two connections race: this one was there before the server had begun to wait.
            self._poke = self._loop.call_later(_RETURN, self.unblock)


def _lowest(sources: Iterable[Resting]) -> bytes:
    return min((source.position for source in sources), key=order)
