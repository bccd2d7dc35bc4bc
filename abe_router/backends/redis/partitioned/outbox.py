"""Outputs to other partitions, as messages of the outbox of the partition of their cause.

An ack and its outputs are one step only under one hash tag. So an output to another partition goes into the
outbox of this one in that step, and a mover appends it to the partition of its key later.

The identity of a move is derived from its cause: the entry of the cause, its subscription, and the number of
the output. If a failover undoes the ack, the handler runs again, and its outputs may have other ids. If a
failover undoes a deletion in the outbox, the new master may give the entry id again. The identity is right in
both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from abe_router.backend import Acked, Delivery, Outcome
from abe_router.backends.redis.entry import accepted_at, pack_headers, read_message
from abe_router.backends.redis.names import OUTBOX
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.scripts import RANGE
from abe_router.messages.message import Message

#: Most outputs in an outbox that `status` counts, and their bytes.
_COUNTED, _COUNTED_BYTES = 1000, 1024 * 1024

Settlements = Sequence[tuple[Delivery, Outcome]]


class Move(msgspec.Struct, frozen=True):
    """An output on its way: the entry of the outbox that has it, and what identifies the move.

    `window` is for how many seconds the id of the message is remembered where it goes.
    """

    entry: bytes
    identity: str
    window: float
    message: Message

    @classmethod
    def read(cls, entry: bytes, fields: Sequence[bytes]) -> Move | None:
        """Return what an entry of an outbox has, None if another program wrote it."""
        outer, _ = read_message(entry, fields, OUTBOX)
        headers = dict(outer.headers)
        try:
            key, id, window = headers.pop("key"), headers.pop("id"), float(headers.pop("window"))
            inner = msgspec.json.decode(headers.pop("headers"), type=dict[str, str])
        except (KeyError, ValueError):  # msgspec's errors are ValueErrors
            return None
        return cls(entry, outer.id, window, Message(id, key, outer.body, inner, outer.published_at))


async def waiting(source: Node) -> list[tuple[str, float]]:
    """Return the keys of the outputs in an outbox, the first ones of many, and since when each one waits."""
    args = ("-", _COUNTED, _COUNTED_BYTES)
    rows, _ = await source.connection.run(RANGE, (source.names.stream(OUTBOX),), args)
    moves = [Move.read(entry, fields) for entry, fields in rows]
    return [(move.message.key, accepted_at(move.entry)) for move in moves if move]


def divert(settlements: Settlements, subscription: str, is_own: Callable[[str], bool]) -> Settlements:
    """Return the outcomes with each output to a key that is not the partition's own put into the outbox."""
    if not any(isinstance(outcome, Acked) and outcome.outputs for _, outcome in settlements):
        return settlements  # as nearly always
    return [
        (delivery, _diverted(delivery, outcome, subscription, is_own)) for delivery, outcome in settlements
    ]


def _diverted(
    delivery: Delivery, outcome: Outcome, subscription: str, is_own: Callable[[str], bool]
) -> Outcome:
    if not isinstance(outcome, Acked) or all(is_own(output.key) for output in outcome.outputs):
        return outcome
    outputs = [
        output
        if is_own(output.key)
        else _enveloped(output, _identity(delivery, subscription, n), outcome.window)
        for n, output in enumerate(outcome.outputs)
    ]
    return Acked(tuple(outputs), outcome.window)


def _identity(delivery: Delivery, subscription: str, number: int) -> str:
    cause = delivery.message
    parts = (subscription, cause.key, delivery.receipt.decode(), cause.id, str(number))
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _enveloped(output: Message, identity: str, window: float) -> Message:
    about = {
        "key": output.key,
        "id": output.id,
        "window": repr(window),
        "headers": pack_headers(output.headers).decode() or "{}",
    }
    return Message(identity, OUTBOX, output.body, about, output.published_at)
