"""The contract of a backend, in promises.

A backend keeps a log of messages for each key and, for each subscription, what of the log it has handed
out and not yet seen settled. It promises at-least-once: what `append` accepted stays until every
subscription has settled it.

A subscription is named by a key or pattern and a group. Subscriptions of the same name, in any number of
processes, share its messages; every other subscription gets its own copy.

All methods are coroutines of one event loop and may run concurrently with each other. Any of them raises
BackendUnavailable when the server or file cannot be reached; the caller may try again, and the backend
reconnects by itself. Cancelling a call never loses a message: what it had fetched comes back after its
lease at the latest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import msgspec

from abe_router.message import Message, encode, new_message


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """One attempt to hand a message to a subscription; equal only to itself.

    `deliveries` counts every time it was handed out, crashes included, this one too; the message's
    `attempt` counts only the attempts that ended in a failure, plus this one. `failed_at` is the time of
    the first failure, in seconds since the epoch, None before it. `receipt` belongs to the backend.
    """

    message: Message
    deliveries: int
    receipt: Any
    failed_at: float | None = None


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
    """A message that ended unhandled, with all that is known of why.

    `id` names the dead letter (not the message) within its route; the backend chooses it and it is empty
    before. Times are in seconds since the epoch. `table` is the hash of the route table in force.
    """

    route: str
    message: Message
    reason: Reason
    attempts: int
    deliveries: int
    first_failed_at: float
    last_failed_at: float
    table: str = ""
    id: str = ""


class Acked(msgspec.Struct, frozen=True):
    """The outcome of a delivery that was handled."""


class Delayed(msgspec.Struct, frozen=True):
    """The outcome of a delivery that failed and is tried again after `seconds`."""

    seconds: float


class Died(msgspec.Struct, frozen=True):
    """The outcome of a delivery that is kept among the dead letters."""

    letter: DeadLetter


class Released(msgspec.Struct, frozen=True):
    """The outcome of a delivery that was never tried: handed back, as if never delivered."""


Outcome = Acked | Delayed | Died | Released
ACKED, RELEASED = Acked(), Released()


class Features(msgspec.Struct, frozen=True):
    """What a backend can do; `check` warns about options that ask for more.

    `durable` messages survive a crash of this process; `processes` may share the backend; `leases` and
    `delays` and `dead_letters` and `groups` are what a plain publish/consume provider lacks.
    """

    durable: bool = True
    processes: bool = True
    groups: bool = True
    leases: bool = True
    delays: bool = True
    dead_letters: bool = True


class SubscriptionStatus(msgspec.Struct, frozen=True):
    """The counts of one subscription: waiting, handed out, waiting for a retry, dead."""

    pattern: str
    group: str
    ready: int
    in_flight: int
    delayed: int
    dead: int


class Subscription(ABC):
    """A live handle on one subscription, used by one consumer."""

    pattern: str
    group: str

    @abstractmethod
    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries, as soon as there is one, or none after `wait` seconds.

        Each is leased to this handle: nobody else gets it before the lease runs out. New messages, due
        retries and deliveries whose lease ran out elsewhere all come this way, whether or not there is
        new traffic. Messages of one key come in the order they were appended, but for retries. Only one
        fetch of a handle runs at a time. A closed handle returns none, at once.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once with whatever it has."""

    @abstractmethod
    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, all or some; return the deliveries that were refused.

        Refused is a delivery whose lease this handle no longer holds, since it was settled before or
        handed out anew: nothing changes for it. A lease that ran out is still held while nobody else
        took the delivery. Each outcome is carried out whole or not at all. Settling again after an error
        is safe: what was settled before is refused then.
        """

    @abstractmethod
    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Start the lease of each delivery anew; return those whose lease was already lost."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the handle. Idempotent; what is unsettled comes back after its lease."""


class Backend(ABC):
    """A place where messages are kept; see the module for what it promises."""

    #: What this provider can do.
    features: ClassVar[Features] = Features()
    #: Where it is, without credentials, fit for a log.
    url: str

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        """Make a backend from its URL, without connecting; raise ValueError when the URL is malformed.

        `prefix` comes before each key in the names of what is stored.
        """

    @classmethod
    @abstractmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Make a backend from environment variables, without connecting."""

    @abstractmethod
    async def open(self) -> None:
        """Connect. Idempotent; every other method calls it when need be."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. Idempotent. Open subscriptions are closed too."""

    @abstractmethod
    async def append(self, messages: Sequence[Message]) -> None:
        """Accept the messages, in order: when this returns they are kept, as durably as the backend is.

        When it raises, any prefix of them may have been kept: the outcome is unknown, and the ids tell.
        It never retries by itself, for that would double messages without a word.
        """

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Message:
        """Encode and append one message, unchecked by any schema; return it.

        Raise KeyInvalid or PayloadUnencodable when it cannot be a message.
        """
        message = new_message(key, encode(payload), headers=headers, id=id)
        await self.append([message])
        return message

    @abstractmethod
    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        """Return a handle on the subscription, making it when it does not exist.

        A new one begins at `start`, in seconds since the epoch: 0 is the earliest message kept, infinity
        the next one to come. `lease` is in seconds. Keys that appear later and match are included.
        """

    @abstractmethod
    async def status(self) -> Sequence[SubscriptionStatus]:
        """Return the counts of every subscription the backend knows, sorted by pattern and group."""

    @abstractmethod
    async def drop(self, pattern: str, group: str) -> bool:
        """Forget a subscription, all it has not settled and its dead letters; False if unknown."""

    @abstractmethod
    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Return dead letters, oldest first, beginning after the one whose id is `after`."""

    @abstractmethod
    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Hand dead letters to their own subscription anew, with fresh counts; return how many.

        Each is moved in one step, so a crash neither loses nor doubles it; unknown ids are passed over.
        """

    @abstractmethod
    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Delete dead letters for good; return how many. Unknown ids are passed over."""

    @abstractmethod
    async def announce(self, worker: str, state: bytes, ttl: float) -> None:
        """Keep `state` as the word of a worker for `ttl` seconds; empty `state` withdraws it."""

    @abstractmethod
    async def announcements(self) -> Mapping[str, bytes]:
        """Return what the living workers announced, by worker."""
