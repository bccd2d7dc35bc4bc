"""How a message travels through a provider that carries bare payloads."""

from __future__ import annotations

from typing import Any

import msgspec

from abe_router.errors import PayloadUnencodable
from abe_router.message import Message, encode, new_id

#: The member of a payload that holds what is not payload.
MEMBER = "_abe_router"


class Envelope(msgspec.Struct, frozen=True):
    """What of a message is not payload."""

    id: str
    key: str
    headers: dict[str, str] = {}
    published_at: float = 0.0


def wrap(message: Message) -> dict[str, Any]:
    """Return the payload with its envelope; raise PayloadUnencodable when it is not a JSON object."""
    payload = message.payload
    if not isinstance(payload, dict):
        raise PayloadUnencodable(
            f"providers written for Abstract Backend carry JSON objects, not {type(payload).__name__}"
        )
    envelope = Envelope(message.id, message.key, dict(message.headers), message.published_at)
    return {**payload, MEMBER: msgspec.to_builtins(envelope)}


def unwrap(payload: Any) -> Message:
    """Return the message at its first attempt; its key is empty when there was no envelope.

    Raise PayloadUnencodable when the provider yielded what is not JSON.
    """
    if isinstance(payload, dict) and MEMBER in payload:
        try:
            envelope = msgspec.convert(payload[MEMBER], Envelope)
        except msgspec.ValidationError:
            pass  # someone else's member: it is payload
        else:
            body = encode({name: value for name, value in payload.items() if name != MEMBER})
            return Message(envelope.id, envelope.key, body, envelope.headers, envelope.published_at, 1)
    return Message(new_id(), "", encode(payload), attempt=1)
