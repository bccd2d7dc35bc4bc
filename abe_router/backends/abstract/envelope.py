"""The form in which a message travels through a provider that carries payloads only."""

from __future__ import annotations

from typing import Any

import msgspec

from abe_router.messages.message import Message, encode, new_id

#: The member of a payload that contains the rest of the message.
MEMBER = "_abe_router"


class Envelope(msgspec.Struct, frozen=True):
    """A message without its payload, or with it if the payload is not an object."""

    id: str
    key: str
    headers: dict[str, str] = {}
    published_at: float = 0.0
    payload: Any = msgspec.UNSET


def wrap(message: Message) -> dict[str, Any]:
    """Return an object: the payload with the envelope as an extra member."""
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
    """Return the message at its first attempt; its key is empty if there is no envelope.

    Raise PayloadUnencodable if the payload cannot be JSON.
    """
    if isinstance(payload, dict) and MEMBER in payload:
        try:
            envelope = msgspec.convert(payload[MEMBER], Envelope)
        except msgspec.ValidationError:
            pass  # a member of another program is a part of the payload
        else:
            carried = envelope.payload
            if carried is msgspec.UNSET:
                carried = {name: value for name, value in payload.items() if name != MEMBER}
            headers, at = envelope.headers, envelope.published_at
            return Message(envelope.id, envelope.key, encode(carried), headers, at, 1)
    return Message(new_id(), "", encode(payload), attempt=1)
