"""What `Backend.peek` returns: messages that are looked at and left as they are."""

from __future__ import annotations

from typing import Literal

import msgspec

from abe_router.messages.message import Message

#: Where a peeked message stands: it waits, it is handed out, it waits for its retry, or, without a group,
#: it is retained.
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
