"""Takes deliveries out of the streams of one subscription, for one handle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from abe_router.backend import Delivery
from abe_router.backends.redis.entry import new_deliveries, taken_deliveries
from abe_router.backends.redis.fault import ServerError
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.scripts import ADOPT, CLAIM, RESTORE
from abe_router.backends.redis.source import Agenda, Marks, Source
from abe_router.backends.redis.sweep import HORIZON, Sweep
from abe_router.backends.redis.waker import Waker
from abe_router.backends.redis.window import Window
from abe_router.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: Pauses before a group that was lost again is made anew, in seconds: the first one, which doubles, and the
#: longest. After as long without a loss it begins at the first.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


#: A read that was asked for: how many entries of which source at most, and the answer to come.
Asked = tuple[Source, int, asyncio.Future[Any]]
Reading = list[Asked]


class Intake:
    """Does what the agenda says, one round at a time.

    A round that was begun is never cancelled, since what the server handed out would be lost on the way.
    `lost` is called before a group that is gone is made anew; it raises BackendError to forbid that.
    """

    def __init__(
        self,
        line: Line,
        sweep: Sweep,
        waker: Waker,
        agenda: Agenda,
        window: Window,
        lost: Callable[[Source], Awaitable[None]],
    ) -> None:
        self._line, self._sweep, self._waker, self._agenda = line, sweep, waker, agenda
        self._window = window
        self.lost = lost
        self._claimed_last = False
        #: When each group was made anew, and until it may be again, in seconds; and those that wait for it.
        self._restored: dict[Source, tuple[float, float]] = {}
        self._pausing: set[Source] = set()

    async def take(self, limit: int) -> list[Delivery]:
        """Do one round; return what it brought, which may be nothing.

        Raise BackendError when nothing can be had; what could not be done stays on the agenda.
        """
        agenda = self._agenda
        await self._line.open()
        if agenda.make:
            await self.make()
        if agenda.restore:
            await self._restore()
        if agenda.rest:
            await self._rest()
        if agenda.adopt and (found := await self._adopt()):
            return found
        # New messages and old ones take turns, so that neither keeps the other waiting.
        if agenda.claim and not (agenda.readable and self._claimed_last):
            found = await self._claim(limit)
            self._claimed_last = bool(found)
            if found:
                return found
        self._claimed_last = False
        if not agenda.readable:
            return []
        reading = self.ask(limit)
        await asyncio.wait([reading[-1][-1]])  # before the last answer come all others
        return self.accept(reading)

    def ask(self, limit: int) -> Reading:
        """Ask for what is new, of as many sources as the limit allows, a fair share of each.

        Raise BackendUnavailable when the line is down.
        """
        marks, reading = self._agenda.read, Reading()
        chosen, share = shares(self._agenda.free(marks), limit)
        for source in chosen:
            reading.append(self.read(source, share, self._line))
            del marks[source]
        size = sum(source.size(count) for source, count, _ in reading)
        self._window.sent(size, reading[-1][-1])
        self._line.hurry()
        return reading

    def read(self, source: Source, limit: int, line: Line) -> Asked:
        """Ask over a line for what is new of a source; raise BackendUnavailable when that is down."""
        count = min(limit, source.most)
        command = ("GROUP", source.group, source.consumer, "COUNT", count, "STREAMS", source.stream, ">")
        return source, count, line.send("XREADGROUP", *command)

    def accept(self, reading: Reading) -> list[Delivery]:
        """Return what a reading brought, once all its answers are there; raise as `take` does."""
        marks, found = self._agenda.read, []
        failed: BackendError | None = None
        for source, count, answer in reading:
            try:
                answered = answer.result()
            except BackendError as error:
                failed = self._failed(source, marks, error) or failed
                continue
            if not answered:
                self._agenda.rest[source] = None
                continue
            entries = answered[0][1]
            found += self._accept(source, *new_deliveries(entries, source.key, source.group))
            source.position = entries[-1][0]
            if len(entries) < count:
                self._waker.rest(source)
            else:
                marks[source] = None
        if failed and not found:
            raise failed
        return found

    async def make(self) -> None:
        """Make the groups that may not be there yet, and their streams.

        Of many, one that cannot be made is no reason to go without the others: it is tried again later.
        """
        marks, failed, made = self._agenda.make, None, 0
        command = "XGROUP", "CREATE"
        sent = [(s, self._line.send(*command, s.stream, s.group, s.begin, "MKSTREAM")) for s in marks]
        for source, answer in sent:
            try:
                await answer
            except ServerError as error:
                if error.code != "BUSYGROUP":
                    failed = error
                    _log.warning("stream `%s` gets no group `%s`: %s", source.stream, source.group, error)
                    del marks[source]
                    loop = asyncio.get_running_loop()
                    loop.call_later(_LONGEST_PAUSE, self._agenda.mark, marks, [source])
                    continue
            made += 1
            del marks[source]
            self._agenda.claim[source] = self._agenda.read[source] = None
        if failed and not made:
            raise failed

    async def _rest(self) -> None:
        """Let sources rest: of their group others may have read, and it got further than we know."""
        marks = self._agenda.rest
        sent = [(source, self._line.send("XINFO", "GROUPS", source.stream)) for source in marks]
        marks.clear()
        for source, answer in sent:
            try:
                rows = await answer
            except BackendError as error:
                self._failed(source, self._agenda.read, error)
                continue
            for row in rows:
                group = dict(zip(row[::2], row[1::2], strict=True))
                if group[b"name"] == source.group.encode():
                    source.position = group[b"last-delivered-id"]
            self._waker.rest(source)

    async def _claim(self, limit: int) -> list[Delivery]:
        """Take what was delivered before and is to be delivered again, as `ask` takes what is new."""
        marks = self._agenda.claim
        chosen, share = shares(marks, limit)
        sent: Reading = []
        for source in chosen:
            keys = (source.stream, source.failures, source.delayed)
            args = (source.group, source.consumer, source.lease, HORIZON, min(share, source.most))
            sent.append((source, share, self._line.run(CLAIM, keys, args)))
            del marks[source]
        found: list[Delivery] = []
        failed: BackendError | None = None
        for source, _, answer in sent:
            try:
                taken, gone, more = await answer
            except BackendError as error:
                failed = self._failed(source, marks, error) or failed
                continue
            if more == 0:
                marks[source] = None
            elif more > 0:
                self._sweep.expect(source, more / 1000)
            found += self._take(source, taken, gone)
        if failed and not found:
            raise failed
        return found

    async def _adopt(self) -> list[Delivery]:
        """Take what the server handed us in an answer that never came."""
        found: list[Delivery] = []
        failed: BackendError | None = None
        marks = self._agenda.adopt
        for source in tuple(self._agenda.free(marks)):
            del marks[source]
            keys, first, rows = (source.stream, source.failures), b"-", [[b""]]
            try:
                while rows:
                    rows = await self._line.send(
                        "XPENDING", source.stream, source.group, first, "+", 100, source.consumer
                    )
                    if unknown := [row[0] for row in rows if row[0] not in source.hand]:
                        args = (source.group, source.consumer, *unknown)
                        found += self._take(source, *await self._line.run(ADOPT, keys, args))
                    first = b"(" + rows[-1][0] if rows else b""
            except BackendError as error:
                failed = self._failed(source, marks, error) or failed
        if failed and not found:
            raise failed
        return found

    async def _restore(self) -> None:
        """Make groups that are gone anew, from the beginning of what their streams hold now."""
        marks, loop = self._agenda.restore, asyncio.get_running_loop()
        for source in tuple(marks):
            del marks[source]
            if source in self._pausing:
                continue
            at, pause = self._restored.get(source, (0.0, 0.0))
            wait = at + pause - loop.time() if pause else 0.0
            try:
                # Before a pause too: what nobody subscribes to, as far as is known, is removed.
                await self.lost(source)
                if wait > 0:
                    self._pausing.add(source)
                    loop.call_later(wait, self._paused, source)
                    continue
                made = await self._line.run(
                    RESTORE, (source.stream, source.failures, source.delayed), (source.group,)
                )
            except BackendError:
                marks[source] = None
                raise
            again = loop.time() - at < _LONGEST_PAUSE
            pause = min(pause * 2, _LONGEST_PAUSE) if again and pause else _FIRST_PAUSE
            self._restored[source] = loop.time(), pause
            source.position = b"0-0"
            source.hand.clear()
            self._agenda.read[source] = None
            if made:
                self._sweep.losses.note(source.stream, source.group)

    def _paused(self, source: Source) -> None:
        self._pausing.discard(source)
        self._agenda.mark(self._agenda.restore, [source])

    def _take(self, source: Source, taken: Sequence[Any], gone: Sequence[bytes]) -> list[Delivery]:
        if gone:
            _log.warning(
                "messages of stream `%s` were deleted before group `%s` had settled them: %d",
                source.stream,
                source.group,
                len(gone),
            )
            source.hand.difference_update(gone)
        return self._accept(source, *taken_deliveries(taken, source.key, source.group))

    def _accept(self, source: Source, found: list[Delivery], others: list[bytes]) -> list[Delivery]:
        source.received(found)
        if others:
            with suppress(BackendUnavailable):  # then they come again, and go again
                self._line.send("XACK", source.stream, source.group, *others)
        return found

    def _failed(self, source: Source, marks: Marks, error: BackendError) -> BackendError | None:
        """Note what an error means for a source; return it unless it is taken care of thereby."""
        if isinstance(error, ServerError) and error.code == "NOGROUP":
            self._agenda.restore[source] = None
            return None
        marks[source] = None
        if isinstance(error, BackendUnavailable):
            self._agenda.adopt[source] = None
        return error


def shares(marks: Iterable[Source], limit: int) -> tuple[Sequence[Source], int]:
    """Return as many sources as the limit allows, those that wait longest, and the fair share of each."""
    chosen = tuple(islice(marks, limit))
    return chosen, limit // len(chosen)
