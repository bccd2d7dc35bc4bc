"""How a message travels through a provider that carries bare payloads."""

from __future__ import annotations

from typing import Any

import msgspec

from abe_router.messages.message import Message, encode, new_id

#: The member of a payload that holds what is not payload.
MEMBER = "_abe_router"


class Envelope(msgspec.Struct, frozen=True):
    """What of a message is not payload, or all of it when the payload is no object."""

    id: str
    key: str
    headers: dict[str, str] = {}
    published_at: float = 0.0
    payload: Any = msgspec.UNSET


def wrap(message: Message) -> dict[str, Any]:
    """Return the payload, an object, with the envelope as one more member."""
    payload = message.payload
    is_object = isinstance(payload, dict)
    envelope = Envelope(
        message.id,
        message.key,
        dict(message.headers),
        message.published_at,
        msgspec.UNSET if is_object else payload,
    )
    return {**(payload if is_object else {}), MEMBER: msgspec.to_builtins(envelope)}


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
            carried = envelope.payload
            if carried is msgspec.UNSET:
                carried = {name: value for name, value in payload.items() if name != MEMBER}
            headers, at = envelope.headers, envelope.published_at
            return Message(envelope.id, envelope.key, encode(carried), headers, at, 1)
    return Message(new_id(), "", encode(payload), attempt=1)
