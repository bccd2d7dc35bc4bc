"""What a backend shows: the status of a subscription, messages that are looked at, and stored values."""

from __future__ import annotations

from typing import Literal

import msgspec

from abe_router.messages.message import Message


class SubscriptionStatus(msgspec.Struct, frozen=True):
    """The counts of one subscription: ready, in flight, waiting for a retry, dead.

    `oldest_at` is when the oldest message that is ready was accepted, in seconds since the epoch; None when
    there is none. A message that was replayed counts from its acceptance or from its replay, as the provider
    keeps it.
    """

    pattern: str
    group: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    oldest_at: float | None = None

    @property
    def name(self) -> str:
        """Its identity, `pattern/group`, which is the name of its route."""
        return f"{self.pattern}/{self.group}"


#: The state of a message that is looked at: it waits, it is handed out, it waits for its retry, or, without a
#: group, it is retained.
PeekState = Literal["ready", "in_flight", "delayed", "retained"]


class Peeked(msgspec.Struct, frozen=True):
    """One message that was looked at.

    `cursor` continues a peek behind it. It is opaque, and belongs to one pattern and group of one backend.
    `deliveries` counts how often the message was handed out to the group so far.
    """

    cursor: str
    message: Message
    state: PeekState
    deliveries: int = 0


class Entry(msgspec.Struct, frozen=True):
    """A value of the key-value store, whose terms are those of the NATS key-value store.

    `revision` is positive. A later change in the bucket has a greater one, and none is ever given twice, not
    even after a delete or an expiry.
    """

    value: bytes
    revision: int
