"""A delivery and its possible outcomes, as values."""

from __future__ import annotations

from typing import Any

import msgspec

from abe_router.messages.message import Message


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """One attempt to deliver a message to a subscription. It is equal only to itself.

    `deliveries` counts all deliveries of the message to the group: this one, earlier ones, and those that a
    crash ended. The message's `attempt` counts the failed attempts and this one. `failed_at` is the time of
    the first failure, in seconds since the epoch, or None. Only the backend uses `receipt`. `wait` is the
    number of seconds until the attempt is due; only an exclusive handle returns deliveries before that.
    `fault` says why the backend found no payload in what another program wrote. The body is then empty.
    `replays` counts the replays of the message to the group.
    """

    message: Message
    deliveries: int
    receipt: Any
    failed_at: float | None = None
    wait: float = 0.0
    fault: str = ""
    replays: int = 0

    def next_attempt(self, *, receipt: Any, failed_at: float, wait: float = 0.0) -> Delivery:
        """Return the delivery of the next attempt, after this one failed at `failed_at`.

        Attempts and deliveries increase by one. The time of the first failure is kept. The new `receipt`
        replaces the old one, and the attempt is due in `wait` seconds.
        """
        message = self.message
        return Delivery(
            msgspec.structs.replace(message, attempt=message.attempt + 1),
            self.deliveries + 1,
            receipt,
            failed_at if self.failed_at is None else self.failed_at,
            wait,
            replays=self.replays,
        )


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why a delivery failed.

    `kind` is `invalid` (the payload breaks its schema), `malformed` (not JSON), `rejected` (the handler
    raised `Reject`), `failed` (the handler raised another error), `timeout`, or `max_deliveries` (delivered
    too often, most likely because it kills the process). `pointer` and `keyword` describe the first
    violation of the schema. `type` is the qualified type of the exception, and `frame` the innermost frame of
    the user's code, as `module:function`. They are empty where no code of the user ran.
    """

    kind: str
    error: str
    message: str
    traceback: str = ""
    pointer: str = ""
    keyword: str = ""
    type: str = ""
    frame: str = ""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A message that ended without being handled, with the reason.

    `id` identifies the dead letter (not the message) within its route. The backend sets it; before that it is
    empty. Times are in seconds since the epoch. `revision` is that of the active route table. `replays`
    counts the replays of the message to its route, and `former` is the id of the dead letter that the last
    replay moved. The backend sets both.
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
    replays: int = 0
    former: str = ""

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
    """The outcome of a handled delivery. `outputs` are appended in the same step.

    With a `window`, in seconds, they are appended as by `append_once`.
    """

    outputs: tuple[Message, ...] = ()
    window: float = 0.0


class Delayed(msgspec.Struct, frozen=True):
    """The outcome of a failed delivery that is retried after `seconds`."""

    seconds: float


class Dead(msgspec.Struct, frozen=True):
    """The outcome of a delivery whose message becomes a dead letter."""

    dead_letter: DeadLetter


class Released(msgspec.Struct, frozen=True):
    """The outcome of a delivery that was not attempted: its message is ready again, as if never delivered."""


Outcome = Acked | Delayed | Dead | Released
ACKED, RELEASED = Acked(), Released()
