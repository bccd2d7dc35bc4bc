"""Carries out the outcomes of deliveries, in one script call for each stream and kind of outcome."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from abe_router.backend import ACKED, Acked, Dead, DeadLetter, Delayed, Delivery, Outcome, Released
from abe_router.backends.redis.blocking_connection import ScriptCall
from abe_router.backends.redis.entry import MOST_BYTES, pack_headers
from abe_router.backends.redis.gaps import Change
from abe_router.backends.redis.group_consumers import LARGE, GroupConsumer, Part
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.protocol import MANY, Arg, ServerError
from abe_router.backends.redis.scripts import (
    ACK,
    DEAD_LETTER,
    DELAY,
    EMIT,
    EXTEND,
    EXTEND_UNREAD,
    POSTPONE,
    REFUSED,
    RELEASE,
)
from abe_router.backends.redis.stream_state import MOST_ENTRIES, PendingReason, StreamState
from abe_router.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: Most entries of one call, and most that carry payloads: dead letters and outputs. Lua limits the arguments.
_CHUNK, _WITH_PAYLOADS = 500, 25

#: How long entries that are gone are counted before they are logged again, in seconds: after the loss of a
#: group each settle of another worker meets some.
_GATHERED = 2.0

Sent = tuple[StreamState, GroupConsumer, Part, asyncio.Future[Any]]


class Settlement:
    """Settles and extends the deliveries of one handle, whose streams are given by key."""

    def __init__(self, node: Node, streams: Mapping[str, StreamState]) -> None:
        self._node, self._streams = node, streams
        self._connection = node.connection
        #: By stream, entries whose settlement may have succeeded although its reply was lost. What one call
        #: appended to several streams has the same ids.
        self._unsure: defaultdict[StreamState, set[bytes]] = defaultdict(set)
        #: What a postponement is under way of. It changes the delivery count, so an extension is refused.
        self._postponing: set[Delivery] = set()
        #: How many entries of a stream were gone since that was last logged.
        self._gone: dict[StreamState, int] = {}

    async def settle(self, settlements: Part) -> list[Delivery]:
        """Carry out the outcomes; return the deliveries that were refused."""
        sent: list[Sent] = []
        refused: list[Delivery] = []
        parts = list(self._parts(settlements, refused))
        try:
            for stream, consumer, part in parts:
                outcome = part[0][1]
                large = isinstance(outcome, Dead) or (isinstance(outcome, Acked) and bool(outcome.outputs))
                step = _WITH_PAYLOADS if large else _CHUNK
                for first in range(0, len(part), step):
                    piece = part[first : first + step]
                    sent.append((stream, consumer, piece, self._send(stream, consumer, piece)))
                    consumer.under_way += 1
            if len(sent) >= MANY:
                self._connection.flush_early(len(sent))  # before other handlers run
            refused += await self._collect(sent)
        except BaseException:  # whether the server has carried them out is not known
            for stream, consumer, _ in parts:
                stream.consumers.distrust(consumer)
            raise
        for _, consumer, *_ in sent:
            consumer.under_way -= 1
        for stream, _, part in parts:
            outcome = part[0][1]
            if isinstance(outcome, Delayed):
                self._node.reaper.expect(stream, min(o.seconds for _, o in part if isinstance(o, Delayed)))
            elif isinstance(outcome, Released):
                stream.pending.claimed_last = False
                self._node.reaper.expect(stream, 0)
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Start the leases anew, but for those that a postponement renews; return what was refused."""
        refused: list[Delivery] = []
        extended = [each for each in deliveries if each not in self._postponing]
        sent = [
            (stream, consumer, piece, self._connection.run(*call))
            for stream, consumer, piece, call in self._extensions(extended, refused)
        ]
        return refused + await self._collect(sent, settled=False)

    def extension_calls(self, deliveries: Sequence[Delivery]) -> list[ScriptCall]:
        """Return the calls that start the leases anew, for a thread that runs them.

        They include what the server delivered in a reply that the event loop has not read yet.
        """
        keys = {delivery.message.key for delivery in deliveries}
        streams = [stream for key, stream in tuple(self._streams.items()) if stream.pipelined or key in keys]
        unread = [
            ScriptCall(
                EXTEND_UNREAD, (s.stream,), (s.group, each.name, MOST_ENTRIES, *tuple(s.consumers.held))
            )
            for s in streams
            for each in s.consumers.uncertain
        ]
        return [call for *_, call in self._extensions(deliveries, [])] + unread

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> list[Delivery]:
        """Count failures of deliveries that the handle keeps; return those that were refused."""
        sent: list[Sent] = []
        refused: list[Delivery] = []
        seconds = dict(failed)
        settlements = [(delivery, Delayed(wait)) for delivery, wait in failed]
        for stream, consumer, part in self._parts(settlements, refused):
            for first in range(0, len(part), _CHUNK):
                piece = part[first : first + _CHUNK]
                entries: list[Arg] = []
                for delivery, _ in piece:
                    entries += (delivery.receipt, max(0, math.ceil(seconds[delivery] * 1000)))
                keys = (stream.stream, stream.failures, stream.delayed)
                reply = self._connection.run(POSTPONE, keys, _fenced(stream, consumer, piece, entries))
                sent.append((stream, consumer, piece, reply))
        self._postponing.update(seconds)
        try:
            return refused + await self._collect(sent, settled=False)
        finally:
            self._postponing.difference_update(seconds)

    def _extensions(
        self, deliveries: Sequence[Delivery], refused: list[Delivery]
    ) -> Iterable[tuple[StreamState, GroupConsumer, Part, ScriptCall]]:
        for stream, consumer, part in self._parts([(each, ACKED) for each in deliveries], refused):
            for first in range(0, len(part), _CHUNK):
                piece = part[first : first + _CHUNK]
                args = _fenced(stream, consumer, piece, [delivery.receipt for delivery, _ in piece])
                yield stream, consumer, piece, ScriptCall(EXTEND, (stream.stream,), args)

    def _parts(
        self, settlements: Part, refused: list[Delivery]
    ) -> Iterable[tuple[StreamState, GroupConsumer, Part]]:
        """Group what can go in one call: the same stream, consumer, delivery count and kind of outcome."""
        alike: dict[tuple[str, object, int], list[tuple[Delivery, Outcome]]] = {}
        group: list[tuple[Delivery, Outcome]] = []
        same_key, same_outcome, same_count = "", None, 0
        for settlement in settlements:
            delivery, outcome = settlement
            key = delivery.message.key
            # Most are like the one before. A look-up for each would cost more than all the rest here.
            if key is not same_key or outcome is not same_outcome or delivery.deliveries != same_count:
                same_key, same_outcome, same_count = key, outcome, delivery.deliveries
                kind = EMIT if isinstance(outcome, Acked) and outcome.outputs else type(outcome)
                group = alike.setdefault((key, kind, same_count), [])
            group.append(settlement)
        for (key, _, _), group in alike.items():
            if stream := self._streams.get(key):
                for consumer, part in stream.consumers.by_consumer(group):
                    yield stream, consumer, part
            else:
                refused += [delivery for delivery, _ in group]

    def _send(self, stream: StreamState, consumer: GroupConsumer, part: Part) -> asyncio.Future[Any]:
        """Send the outcomes of one kind."""
        name, failures, delayed = stream.stream, stream.failures, stream.delayed
        ids: list[bytes] = [delivery.receipt for delivery, _ in part]
        entries: list[Arg] = []
        match part[0][1]:
            case Delayed():
                for delivery, outcome in part:
                    assert isinstance(outcome, Delayed)
                    entries += (delivery.receipt, max(0, math.ceil(outcome.seconds * 1000)))
                args = _fenced(stream, consumer, part, entries)
                return self._connection.run(DELAY, (name, failures, delayed), args)
            case Dead():
                for delivery, outcome in part:
                    assert isinstance(outcome, Dead)
                    entries += (delivery.receipt, *_pack(outcome.dead_letter))
                args = _fenced(stream, consumer, part, entries)
                return self._connection.run(DEAD_LETTER, (name, failures, delayed, stream.dead), args)
            case Released():
                return self._connection.run(RELEASE, (name, delayed), _fenced(stream, consumer, part, ids))
            case Acked(outputs) if outputs:
                return self._emit(stream, consumer, part)
            case _:
                args = _fenced(stream, consumer, part, ids, consumer.proof(ids))
                return self._connection.run(ACK, (name, failures, delayed), args)

    def _emit(self, stream: StreamState, consumer: GroupConsumer, part: Part) -> asyncio.Future[Any]:
        """Send acks together with their outputs."""
        keys: dict[str, int] = {}
        entries: list[Arg] = []
        outputs: list[Arg] = []
        for delivery, outcome in part:
            assert isinstance(outcome, Acked)
            entries += (delivery.receipt, len(outputs) // 6, len(outcome.outputs))
            window = math.ceil(outcome.window * 1000)
            for message in outcome.outputs:
                number = keys.setdefault(message.key, len(keys) + 1)
                headers = pack_headers(message.headers)
                outputs += (number, window, message.id, message.body, message.published_at, headers)
        streams = self._node.appender.prepare(keys)
        ids = [self._node.names.ids(key) for key in keys]
        args = [*_fenced(stream, consumer, part, entries), *outputs, len(part)]
        names = (stream.stream, stream.failures, stream.delayed, *streams, *ids)
        reply = self._connection.run(EMIT, names, args)
        self._node.appender.notify(streams)
        return reply

    async def _collect(self, sent: Sequence[Sent], *, settled: bool = True) -> list[Delivery]:
        """Wait for all replies, then return what was refused, or raise the first error."""
        refused: list[Delivery] = []
        done: list[Delivery] = []
        failed: BackendError | None = None
        for stream, consumer, part, reply in sent:
            ids = [delivery.receipt for delivery, _ in part]
            try:
                lost = await reply
            except ServerError as error:
                if error.code != "NOGROUP":
                    failed = failed or error
                    continue
                # The group is gone, and with it all leases.
                stream.pending.signal(PendingReason.GROUP_LOST, [stream])
                stream.consumers.distrust(consumer)
                stream.consumers.forget(ids, consumer)
                done += [delivery for delivery, _ in part]
                refused += [delivery for delivery, _ in part]
                continue
            except BackendError as error:
                failed = failed or error
                if isinstance(error, BackendUnavailable):
                    self._unsure[stream].update(ids)
                continue
            if lost:
                self._explain(stream, lost)
            stream.consumers.forget(ids if settled else lost, consumer)
            done += [delivery for delivery, _ in part]
            for delivery, _ in part if lost else ():
                if delivery.receipt in lost:
                    lost.remove(delivery.receipt)  # one that was given twice may be refused once
                    refused.append(delivery)
        if failed:
            failed.settled = set(done).difference(refused)
            raise failed
        return refused

    def _explain(self, stream: StreamState, refused: Sequence[bytes]) -> None:
        """Log how many of the refused entries no consumer holds; nothing waits for the answer.

        A lease that another worker took over shows as pending there until that worker settles it. A pending
        entry that another program deleted shows nowhere, and its message is not delivered again.
        """
        unsure = self._unsure[stream]
        gone = [each for each in refused if each in stream.consumers.held and each not in unsure]
        unsure.difference_update(refused)
        if not gone:
            return
        with suppress(BackendUnavailable):
            reply = self._connection.run(REFUSED, (stream.stream,), (stream.group, *gone[:_CHUNK]))
            reply.add_done_callback(partial(self._report_gone, stream))

    def _report_gone(self, stream: StreamState, reply: asyncio.Future[int]) -> None:
        if reply.cancelled() or reply.exception() or not (gone := reply.result()):
            return
        self._node.changes.record(Change(stream.stream, stream.group), gone)
        if stream in self._gone:
            self._gone[stream] += gone
        else:
            self._log_gone(stream, gone)

    def _log_gone(self, stream: StreamState, gone: int) -> None:
        """Log a number of entries at once, and those of the next seconds together."""
        self._gone[stream] = 0
        asyncio.get_running_loop().call_later(_GATHERED, self._log_gathered, stream)
        _log.warning(
            "messages of stream `%s` that this worker held are not pending in group `%s` any more: %d; "
            "another worker settled them, or another program deleted what was pending, with XACK or XGROUP "
            "DELCONSUMER, and they are not delivered again",
            stream.stream,
            stream.group,
            gone,
        )

    def _log_gathered(self, stream: StreamState) -> None:
        if gone := self._gone.pop(stream):
            self._log_gone(stream, gone)


def _fenced(
    stream: StreamState, consumer: GroupConsumer, part: Part, entries: Sequence[Arg], proof: int = 0
) -> list[Arg]:
    """Return the arguments of the scripts that settle."""
    deliveries = part[0][0].deliveries
    # A number says nothing of a former delivery of the same entry.
    proof = proof if len(part) >= LARGE and deliveries == 1 else 0
    return [stream.group, consumer.name, deliveries, proof, *entries]


def _pack(dead_letter: DeadLetter) -> tuple[Arg, ...]:
    """Return a dead letter as the fields of an entry; the body is a field of its own, unchanged."""
    message = dead_letter.message
    headers = pack_headers(message.headers)
    # The server has the body. It keeps the beginning of one that is too large.
    body = message.body if len(message.body) <= MOST_BYTES else b""
    return dead_letter.pack(), body, message.id, message.published_at, headers
