"""A delivery and its possible outcomes, as values."""

from __future__ import annotations

from typing import Any

import msgspec

from abe_router.messages.message import Message


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """One attempt to hand a message to a subscription; equal only to itself.

    `deliveries` counts how often it was handed out, this time and crashes included. The message's `attempt`
    counts the attempts that ended in a failure, and this one. `failed_at` is the time of the first failure,
    in seconds since the epoch, None before it. `receipt` belongs to the backend. `wait` is how many seconds
    are left until the attempt is due; only an exclusive handle returns deliveries before they are due.
    `fault` says why the backend found no payload in what another program wrote. The body is then empty.
    """

    message: Message
    deliveries: int
    receipt: Any
    failed_at: float | None = None
    wait: float = 0.0
    fault: str = ""

    def next_attempt(self, *, receipt: Any, failed_at: float, wait: float = 0.0) -> Delivery:
        """Return the delivery of the next attempt, after this one failed at `failed_at`.

        Attempts and deliveries rise by one. The time of an earlier first failure stays. The new `receipt`
        replaces the old one, and the attempt is due in `wait` seconds.
        """
        message = self.message
        return Delivery(
            msgspec.structs.replace(message, attempt=message.attempt + 1),
            self.deliveries + 1,
            receipt,
            failed_at if self.failed_at is None else self.failed_at,
            wait,
        )


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a delivery failed.

    `kind` is `invalid` (breaks its schema), `malformed` (not JSON), `rejected` (the handler said so),
    `failed` (the handler raised), `timeout`, or `max_deliveries` (it was handed out too often, most likely
    because it kills the process). `pointer` and `keyword` name the first schema violation.
    """

    kind: str
    error: str
    message: str
    traceback: str = ""
    pointer: str = ""
    keyword: str = ""


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was not handled in the end, with all that is known about the reason.

    `id` names the dead letter (not the message) within its route; the backend sets it, and it is empty
    before. Times are in seconds since the epoch. `revision` is that of the route table in force.
    """

    route: str
    message: Message
    reason: Reason
    attempts: int
    deliveries: int
    first_failed_at: float
    last_failed_at: float
    revision: str = ""
    id: str = ""

    def pack(self) -> bytes:
        """Return it as JSON without the body of its message, which providers store separately.

        Lone surrogates in the reason are escaped, so that the dead letter can be stored.
        """
        bare = msgspec.structs.replace(self, message=msgspec.structs.replace(self.message, body=b""))
        try:
            return msgspec.json.encode(bare)
        except UnicodeEncodeError:
            texts = [
                text.encode(errors="backslashreplace").decode()
                for text in msgspec.structs.astuple(self.reason)
            ]
            return msgspec.json.encode(msgspec.structs.replace(bare, reason=Reason(*texts)))


class Acked(msgspec.Struct, frozen=True):
    """The outcome of a delivery that was handled; `outputs` are appended in the same step.

    With a `window`, in seconds, they are appended as `append_once` does.
    """

    outputs: tuple[Message, ...] = ()
    window: float = 0.0


class Delayed(msgspec.Struct, frozen=True):
    """The outcome of a delivery that failed and is tried again after `seconds`."""

    seconds: float


class Dead(msgspec.Struct, frozen=True):
    """The outcome of a delivery that is kept among the dead letters."""

    dead_letter: DeadLetter


class Released(msgspec.Struct, frozen=True):
    """The outcome of a delivery that was not tried: it is handed back as if it was never delivered."""


Outcome = Acked | Delayed | Dead | Released
ACKED, RELEASED = Acked(), Released()
