"""Takes deliveries out of the streams of one subscription in order, for the one handle that has the place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from abe_router.backend import Delivery
from abe_router.backends.redis.entry import new_deliveries
from abe_router.backends.redis.intake import Intake, shares
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.scripts import HOLD
from abe_router.backends.redis.source import Agenda, Source
from abe_router.backends.redis.sweep import Sweep
from abe_router.backends.redis.waker import Waker
from abe_router.backends.redis.window import Window
from abe_router.backends.redis.wire import Arg
from abe_router.errors import BackendError


class Bell:
    """Rings when the place on a stream becomes free."""

    def __init__(self, source: Source, stream: str) -> None:
        self.source, self.stream, self.position = source, stream, b"0-0"

    def stir(self) -> None:
        """Have the handle look."""
        self.source.stir()


class Possession(Intake):
    """Does what the agenda says, one round at a time, on the streams whose place is free or ours."""

    def __init__(
        self,
        line: Line,
        sweep: Sweep,
        waker: Waker,
        agenda: Agenda,
        window: Window,
        names: Names,
        lost: Callable[[Source], Awaitable[None]],
    ) -> None:
        super().__init__(line, sweep, waker, agenda, window, lost)
        self._names = names
        self._doubted: dict[Source, None] = {}
        self._bells: dict[Source, Bell] = {}
        self._timers: dict[Source, asyncio.TimerHandle] = {}

    async def take(self, limit: int) -> list[Delivery]:
        """Do one round; return what it brought, which may be nothing, and raise as `Intake` does."""
        agenda = self._agenda
        await self._line.open()
        if agenda.make:
            await self.make()
        if agenda.restore:
            await self._restore()
        # Whatever there is to look for, one look finds it.
        self._doubted.update(agenda.adopt)
        for marks in (agenda.claim, agenda.rest):
            agenda.read.update(marks)
        for marks in (agenda.claim, agenda.rest, agenda.adopt):
            marks.clear()
        return await self._hold(limit) if agenda.read else []

    def doubt(self, deliveries: Sequence[Delivery], sources: dict[str, Source]) -> None:
        """Note that nobody got these: the next round brings them again."""
        for delivery in deliveries:
            source = sources[delivery.message.key]
            source.hand.discard(delivery.receipt)
            self._doubted[source] = None
            self._agenda.read[source] = None

    def let_go(self) -> None:
        """Look no more."""
        for bell in self._bells.values():
            self._waker.forget(bell)
        for timer in self._timers.values():
            timer.cancel()

    async def _hold(self, limit: int) -> list[Delivery]:
        marks, names = self._agenda.read, self._names
        chosen, share = shares(marks, limit)
        sent = []
        for source in chosen:
            count = min(share, source.most)
            place = names.place(source.key, source.group), names.left(source.key, source.group)
            keys = (source.stream, source.failures, source.delayed, *place)
            known: tuple[Arg, ...] = (len(source.hand), *source.hand) if source in self._doubted else ()
            args = (source.group, source.consumer, source.lease, count, *known)
            sent.append((source, count, self._line.run(HOLD, keys, args)))
            del marks[source]
        found: list[Delivery] = []
        failed: BackendError | None = None
        for source, count, answer in sent:
            try:
                millis, left, *rest = await answer
            except BackendError as error:
                failed = self._failed(source, marks, error) or failed
                continue
            self._doubted.pop(source, None)
            if rest:
                found += self._held(source, count, *rest)
            else:
                self._stand_by(source, left, millis / 1000)
        if failed and not found:
            raise failed
        return found

    def _held(
        self,
        source: Source,
        count: int,
        taken: Sequence[Any],
        new: Sequence[Any],
        gone: Sequence[bytes],
        last: bytes,
    ) -> list[Delivery]:
        """Take in what the place brought, and see to it that it is kept."""
        if bell := self._bells.pop(source, None):
            self._waker.forget(bell)
        waits = {row[0]: int(row[4]) / 1000 for row in taken if int(row[4]) > 0}
        found = [
            msgspec.structs.replace(each, wait=waits[each.receipt]) if each.receipt in waits else each
            for each in self._take(source, [row[:4] for row in taken], gone)
        ]
        found += self._accept(source, *new_deliveries(new, source.key, source.group))
        source.position = last
        if len(taken) + len(new) < count:
            self._waker.rest(source)
        else:
            self._agenda.read[source] = None
        self._look_in(source, source.lease / 3000)
        return found

    def _stand_by(self, source: Source, left: bytes, seconds: float) -> None:
        """Wait until the place is left, or until who has it would have lost it."""
        source.hand.clear()
        bell = self._bells.get(source)
        if bell is None:
            bell = self._bells[source] = Bell(source, self._names.left(source.key, source.group))
        bell.position = left
        self._waker.rest(bell)
        self._look_in(source, seconds)

    def _look_in(self, source: Source, seconds: float) -> None:
        if timer := self._timers.get(source):
            timer.cancel()
        self._timers[source] = asyncio.get_running_loop().call_later(max(seconds, 0.001), source.stir)
