"""The values that a backend shows: the status of a subscription, peeked messages, and stored values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, TypeVar

import msgspec

from abe_router.messages.message import Message

T = TypeVar("T")

_POSITION = re.compile(r"[0-9]{0,18}")


class SubscriptionStatus(msgspec.Struct, frozen=True):
    """The number of messages of one subscription: ready, in flight, delayed for a retry, dead.

    `oldest_at` is the time at which the oldest ready message was accepted, in seconds since the epoch, or
    None if no message is ready. For a replayed message, the provider decides whether this is the time of its
    acceptance or of its replay. `next_due_at` is the time at which the first delayed message is due, or None
    if none is delayed; it may have passed.
    """

    pattern: str
    group: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    oldest_at: float | None = None
    next_due_at: float | None = None

    @property
    def name(self) -> str:
        """Its identity, `pattern/group`, which is the name of its route."""
        return f"{self.pattern}/{self.group}"


#: The state of a peeked message. `retained` is the state of all messages of a peek without a group.
PeekState = Literal["ready", "in_flight", "delayed", "retained"]


class Peeked(msgspec.Struct, frozen=True):
    """One peeked message.

    `cursor` continues a peek after this message. It is opaque, and valid for one pattern and group of one
    backend. `deliveries` is the number of times that the message was delivered to the group.
    """

    cursor: str
    message: Message
    state: PeekState
    deliveries: int = 0


class Entry(msgspec.Struct, frozen=True):
    """A value of the key-value store, which works like the key-value store of NATS.

    `revision` is positive. A later change in the bucket has a greater revision. A revision is never used
    twice, even after a delete or an expiry.
    """

    value: bytes
    revision: int


def read_position(cursor: str) -> int:
    """Return the number that is the cursor of a peek, 0 for an empty one; raise ValueError for other text.

    It is for providers whose cursors are positions in one log.
    """
    if not _POSITION.fullmatch(cursor):
        raise ValueError("`after` is not a cursor of `peek`")
    return int(cursor or 0)


def next_number(names: Iterable[str]) -> int:
    """Return the first number above those among the names of entries. Another process may take it first."""
    return max((int(name) for name in names if name.isdecimal()), default=0) + 1


def read_stored(value: bytes, kind: type[T]) -> T | None:
    """Return a stored JSON value; None if another program or version wrote it and it cannot be read."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
