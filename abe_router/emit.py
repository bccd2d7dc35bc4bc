"""What a handler returns, as a message of its own.

It is appended in the same step that settles the message it came from, so a crash at any point neither
loses nor doubles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from abe_router.deduplication import Deduplication
from abe_router.errors import PayloadInvalid, TooManyHops
from abe_router.message import Message, decode, encode, new_message
from abe_router.schema import Schema

#: Header that counts how many handlers a message has come through.
HOPS = "abe-hops"
#: Header that names the message from which this one was made.
CAUSE = "abe-cause"
#: Most handlers in a row; routes that emit to each other in a circle end here.
MAX_HOPS = 16


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish what the handler returns under `key`; it must satisfy `schemas`.

    Its id comes from where `deduplication` says, else it is a new one.
    """

    key: str
    schemas: tuple[Schema, ...] = ()
    deduplication: Deduplication | None = None

    @property
    def window(self) -> float:
        """For how many seconds the ids of what is emitted are remembered."""
        return self.deduplication.window_of(None) if self.deduplication else 0.0

    def message(self, cause: Message, payload: Any) -> Message:
        """Return the message to append for a handler's answer; it inherits the headers of its cause.

        Raise PayloadUnencodable, PayloadInvalid, IdInvalid, or TooManyHops.
        """
        body = encode(payload)
        value = decode(body)
        violations = [v for s in self.schemas if not s.is_valid(value) for v in s.violations(value)]
        if violations:
            raise PayloadInvalid(self.key, violations)
        text = cause.headers.get(HOPS, "0")
        hops = 1 + (int(text) if text.isascii() and text.isdecimal() else 0)
        if hops > MAX_HOPS:
            raise TooManyHops(f"came through {MAX_HOPS} handlers already: do routes emit in a circle?")
        headers = {**cause.headers, HOPS: str(hops), CAUSE: cause.id}
        id = self.deduplication.id(self.key, value, headers) if self.deduplication else None
        return new_message(self.key, body, headers=headers, id=id)
