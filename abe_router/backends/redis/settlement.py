"""Carries out the outcomes of deliveries: one script call for those of a stream that end alike."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from abe_router.backend import ACKED, Acked, Dead, DeadLetter, Delayed, Delivery, Outcome, Released
from abe_router.backends.redis.entry import pack_headers
from abe_router.backends.redis.fault import ServerError
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.publisher import Publisher
from abe_router.backends.redis.scripts import ACK, BURY, DELAY, EMIT, EXTEND, POSTPONE, RELEASE
from abe_router.backends.redis.source import Source
from abe_router.backends.redis.sweep import Sweep
from abe_router.backends.redis.wire import Arg
from abe_router.errors import BackendError

#: Most entries of one call: Lua passes only so many arguments on, and letters and outputs carry payloads.
_CHUNK, _LETTERS = 500, 25

Part = Sequence[tuple[Delivery, Outcome]]
Sent = tuple[Source, Part, asyncio.Future[Any]]


class Settlement:
    """Settles and extends the deliveries of one handle, whose streams are `sources`, by key."""

    def __init__(
        self, line: Line, names: Names, sweep: Sweep, publisher: Publisher, sources: Mapping[str, Source]
    ) -> None:
        self._line, self._names = line, names
        self._sweep, self._publisher, self._sources = sweep, publisher, sources

    async def settle(self, settlements: Part) -> list[Delivery]:
        """Carry out the outcomes; return the deliveries that were refused."""
        sent: list[Sent] = []
        refused: list[Delivery] = []
        for source, part in self._parts(settlements, refused):
            outcome = part[0][1]
            large = isinstance(outcome, Dead) or (isinstance(outcome, Acked) and bool(outcome.outputs))
            step = _LETTERS if large else _CHUNK
            for first in range(0, len(part), step):
                piece = part[first : first + step]
                sent.append((source, piece, self._send(source, piece)))
        refused += await self._collect(sent)
        for source, part, _ in sent:
            outcome = part[0][1]
            if isinstance(outcome, Delayed):
                self._sweep.expect(source, min(o.seconds for _, o in part if isinstance(o, Delayed)))
            elif isinstance(outcome, Released):
                self._sweep.expect(source, 0)
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Start the leases anew; return the deliveries that were refused."""
        sent: list[Sent] = []
        refused: list[Delivery] = []
        for source, part in self._parts([(delivery, ACKED) for delivery in deliveries], refused):
            for first in range(0, len(part), _CHUNK):
                piece = part[first : first + _CHUNK]
                ids = [delivery.receipt for delivery, _ in piece]
                answer = self._line.run(EXTEND, (source.stream,), _fenced(source, piece, ids))
                sent.append((source, piece, answer))
        return refused + await self._collect(sent, settled=False)

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> list[Delivery]:
        """Count failures of what its consumer keeps; return the deliveries that were refused."""
        sent: list[Sent] = []
        refused: list[Delivery] = []
        seconds = dict(failed)
        for source, part in self._parts([(delivery, Delayed(wait)) for delivery, wait in failed], refused):
            for first in range(0, len(part), _CHUNK):
                piece = part[first : first + _CHUNK]
                entries: list[Arg] = []
                for delivery, _ in piece:
                    entries += (delivery.receipt, max(0, math.ceil(seconds[delivery] * 1000)))
                keys = (source.stream, source.failures, source.delayed)
                answer = self._line.run(POSTPONE, keys, _fenced(source, piece, entries))
                sent.append((source, piece, answer))
        return refused + await self._collect(sent, settled=False)

    def _parts(self, settlements: Part, refused: list[Delivery]) -> Iterable[tuple[Source, Part]]:
        """Group what can go in one call: of one stream, delivered equally often, ending alike."""
        alike: dict[tuple[str, object, int], list[tuple[Delivery, Outcome]]] = {}
        group: list[tuple[Delivery, Outcome]] = []
        same_key, same_outcome, same_count = "", None, 0
        for settlement in settlements:
            delivery, outcome = settlement
            key = delivery.message.key
            # Most are like the one before, and looking that up for each costs more than all the rest here.
            if key is not same_key or outcome is not same_outcome or delivery.deliveries != same_count:
                same_key, same_outcome, same_count = key, outcome, delivery.deliveries
                kind = EMIT if isinstance(outcome, Acked) and outcome.outputs else type(outcome)
                group = alike.setdefault((key, kind, same_count), [])
            group.append(settlement)
        for (key, _, _), group in alike.items():
            if source := self._sources.get(key):
                yield source, group
            else:
                refused += [delivery for delivery, _ in group]

    def _send(self, source: Source, part: Part) -> asyncio.Future[Any]:
        """Send the outcomes of one kind."""
        stream, failures, delayed = source.stream, source.failures, source.delayed
        entries: list[Arg] = []
        match part[0][1]:
            case Delayed():
                for delivery, outcome in part:
                    assert isinstance(outcome, Delayed)
                    entries += (delivery.receipt, max(0, math.ceil(outcome.seconds * 1000)))
                return self._line.run(DELAY, (stream, failures, delayed), _fenced(source, part, entries))
            case Dead():
                for delivery, outcome in part:
                    assert isinstance(outcome, Dead)
                    entries += (delivery.receipt, *_letter(outcome.dead_letter))
                keys = (stream, failures, delayed, source.dead)
                return self._line.run(BURY, keys, _fenced(source, part, entries))
            case Released():
                entries += [delivery.receipt for delivery, _ in part]
                return self._line.run(RELEASE, (stream, delayed), _fenced(source, part, entries))
            case Acked(outputs) if outputs:
                return self._emit(source, part)
            case _:
                entries += [delivery.receipt for delivery, _ in part]
                return self._line.run(ACK, (stream, failures, delayed), _fenced(source, part, entries))

    def _emit(self, source: Source, part: Part) -> asyncio.Future[Any]:
        """Send acks together with what they append."""
        keys: dict[str, int] = {}
        entries: list[Arg] = []
        outputs: list[Arg] = []
        for delivery, outcome in part:
            assert isinstance(outcome, Acked)
            entries += (delivery.receipt, len(outputs) // 6, len(outcome.outputs))
            window = math.ceil(outcome.window * 1000)
            for message in outcome.outputs:
                stream = keys.setdefault(message.key, len(keys) + 1)
                headers = pack_headers(message.headers)
                outputs += (stream, window, message.id, message.body, message.published_at, headers)
        streams = self._publisher.note(keys)
        ids = [self._names.ids(key) for key in keys]
        args = [*_fenced(source, part, entries), *outputs, len(part)]
        answer = self._line.run(EMIT, (source.stream, source.failures, source.delayed, *streams, *ids), args)
        self._publisher.ring(streams)
        return answer

    async def _collect(self, sent: Sequence[Sent], *, settled: bool = True) -> list[Delivery]:
        """Wait for all answers, then return what was refused, or raise the first error."""
        refused: list[Delivery] = []
        done: set[Delivery] = set()
        failed: BackendError | None = None
        for source, part, answer in sent:
            try:
                lost = await answer
            except ServerError as error:
                if error.code != "NOGROUP":
                    failed = failed or error
                    continue
                # With the group went all that anybody held of it.
                lost = [delivery.receipt for delivery, _ in part]
                source.agenda.mark(source.agenda.restore, [source])
            except BackendError as error:
                failed = failed or error
                continue
            source.hand.difference_update([d.receipt for d, _ in part] if settled else lost)
            done.update(delivery for delivery, _ in part)
            for delivery, _ in part if lost else ():
                if delivery.receipt in lost:
                    lost.remove(delivery.receipt)  # one that is there twice may be refused once
                    refused.append(delivery)
        if failed:
            failed.settled = done.difference(refused)
            raise failed
        return refused


def _fenced(source: Source, part: Part, entries: Sequence[Arg]) -> list[Arg]:
    """Return the arguments that settling scripts have in common, and the entries."""
    clocks = {delivery.receipt.partition(b"-")[0] for delivery, _ in part}
    order = sorted(clocks, key=lambda clock: (len(clock), clock))
    return [source.group, source.consumer, part[0][0].deliveries, order[0], order[-1], *entries]


def _letter(letter: DeadLetter) -> tuple[Arg, ...]:
    """Return a dead letter as the fields of an entry: the body stays as it is and outside the letter."""
    message = letter.message
    headers = pack_headers(message.headers)
    return letter.pack(), message.body, message.id, message.published_at, headers
