"""What a handler returns, as a message of its own.

It is appended in the same step that settles the message it came from, so a crash at any point neither
loses nor doubles it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from abe_router.errors import TooManyHops
from abe_router.messages.message import Message, encode_and_read
from abe_router.routing.contract import MessageContract

#: Header that counts how many handlers a message has come through.
HOPS = "abe-hops"
#: Header that names the message from which this one was made.
CAUSE = "abe-cause"
#: Most handlers in a row; routes that emit to each other in a circle end here.
MAX_HOPS = 16


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish what the handler returns under `key`, if it meets the terms of that."""

    key: str
    terms: MessageContract = field(default_factory=MessageContract)

    @property
    def window(self) -> float:
        """For how many seconds the ids of what is emitted are remembered."""
        return self.terms.window()

    def message(self, cause: Message, payload: Any) -> Message:
        """Return the message to append for a handler's answer; it inherits the headers of its cause.

        Raise PayloadUnencodable, PayloadInvalid, IdInvalid, or TooManyHops.
        """
        text = cause.headers.get(HOPS, "0")
        # Whoever publishes may write anything there, and a number of thousands of digits is none to Python.
        hops = 1 + (int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 0)
        if hops > MAX_HOPS:
            raise TooManyHops(f"came through {MAX_HOPS} handlers already: do routes emit in a circle?")
        headers = {**cause.headers, HOPS: str(hops), CAUSE: cause.id}
        body, value = encode_and_read(payload)
        return self.terms.message(self.key, body, value, headers)
