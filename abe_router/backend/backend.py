"""The contract itself: what every provider does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

from abe_router.backend.delivery import DeadLetter
from abe_router.backend.exclusive import ExclusiveSubscription
from abe_router.backend.features import Features
from abe_router.backend.health import HealthResult, SubscriptionName
from abe_router.backend.key_value import Entry
from abe_router.backend.peek import Peeked
from abe_router.backend.rate import TokenGrant
from abe_router.backend.subscription import Subscription, SubscriptionStatus
from abe_router.messages.message import Duplicate, Message, encode, new_message


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

    @abstractmethod
    async def open(self) -> None:
        """Connect. Idempotent; every other method calls it when need be."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. Idempotent. Open subscriptions are closed too."""

    @abstractmethod
    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Accept the messages, in order: once this is awaited they are kept, as durably as the backend is.

        What is returned may be a coroutine or a future: of many callers each awaits a message of its own.
        When it raises, any prefix of them may have been kept: the outcome is unknown, and the ids tell.
        It never retries by itself, for that would double messages without a word.
        """

    @abstractmethod
    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        """Accept messages as `append` does, but none whose key and id were accepted not long ago.

        Each comes with its window, in seconds: for so long from its acceptance on its id is remembered, and
        further messages of the same key and id are passed over; a window of 0 neither looks nor remembers.
        Return those that were passed over. Looking, keeping and remembering are one step for each message:
        its id is remembered if and only if it is kept. So of several publishers at the same time one is
        heard, and after an error the same call, made again within the window, neither doubles nor loses.
        A backend whose features lack `dedupe` keeps all of them.
        """

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        window: float = 0.0,
    ) -> Message:
        """Encode and append one message, unchecked by any schema; return it.

        With a `window`, in seconds, it is a Duplicate, and not kept, when one of its key and id was accepted
        in that time. Raise KeyInvalid or PayloadUnencodable when it cannot be a message.
        """
        message = new_message(key, encode(payload), headers=headers, id=id)
        if not window:
            await self.append([message])
        elif await self.append_once([(message, window)]):
            return Duplicate.of(message)
        return message

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        """Return a handle on the subscription, making it when it does not exist.

        A new one begins at `start`, in seconds since the epoch: 0 is the earliest message kept, infinity
        the next one to come. `lease` is in seconds. Keys that appear later and match are included.
        """

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        """Return a handle that competes with others of its kind for the place, as `subscribe` else.

        Only a backend whose features declare `order` has to have it.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no order")

    @abstractmethod
    async def status(self) -> Sequence[SubscriptionStatus]:
        """Return the counts of every subscription the backend knows, sorted by pattern and group."""

    @abstractmethod
    async def drop(self, pattern: str, group: str) -> bool:
        """Forget a subscription, all it has not settled and its dead letters; False if unknown."""

    @abstractmethod
    async def trim(self, retain: Mapping[str, float]) -> int:
        """Remove messages that every subscription whose pattern matches their key has settled.

        Settled is what was acked or is a dead letter, and what lies before the start of the subscription;
        not what waits, is handed out, handed back or delayed. A key that no subscription matches keeps
        everything. `retain` is by pattern how old, in seconds, a message has to be: the longest that matches
        counts, 0 when none does. It counts for other callers too, until RETAIN_TTL after it was said
        last: what one wants kept, no other removes. A call does a bounded part of the work; return how many
        messages it removed. Dead letters keep their message.
        """

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

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        """Look at messages, oldest first, without leasing, moving or counting any of them.

        With a group these are the messages of its subscription that are not settled: ready, in flight and
        delayed. Without a group they are all messages kept under the keys that match `pattern`. `after` is
        the cursor of an earlier call; messages accepted after that call come behind it, so that calling
        again and again follows what is published. An unknown subscription has none. Only a backend whose
        features declare `peek` has to have it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot peek")

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        """Keep `value` under `name` in a bucket and return its revision, or 0 when it is not kept.

        With `expected` it is kept only if the entry has this revision; an `expected` of 0 means that there
        must be no entry. Comparing and keeping are one step. After `ttl` seconds by the backend's clock the
        entry is gone; without a `ttl` it stays. The cost does not depend on how many entries there are. Only
        a backend whose features declare `key_value` has to have this and the next three methods.
        """
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    async def get(self, bucket: str, name: str) -> Entry | None:
        """Return an entry, None when there is none or it has expired."""
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        """Return the entries of a bucket that have not expired, by name."""
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        """Delete an entry; return False when there is none, or when its revision is not `expected`."""
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    @abstractmethod
    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        """Grant up to `wanted` tokens under `name`, at `rate` a second over all processes together."""

    async def check_health(
        self,
        served: Collection[SubscriptionName] | None = None,  # noqa: ARG002  a provider may need them
    ) -> Sequence[HealthResult]:
        """Look at what weakens the promise here, and write nothing; a provider adds what it can see.

        `served` are the subscriptions that somebody is to serve, None if that is not known: others hold
        their messages in vain. Raise BackendUnavailable when there is nothing to be reached.
        """
        return [feature.result() for feature in self.features.lacking()]
