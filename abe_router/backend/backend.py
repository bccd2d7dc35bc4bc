"""The methods of a backend, which every provider implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

from abe_router.backend.delivery import DeadLetter
from abe_router.backend.features import Features
from abe_router.backend.health import HealthResult, SubscriptionName
from abe_router.backend.rate import TokenGrant
from abe_router.backend.subscription import ExclusiveSubscription, Subscription
from abe_router.backend.views import Entry, Peeked, SubscriptionStatus
from abe_router.messages.message import Duplicate, Message, encode, new_message


class Backend(ABC):
    """Keeps messages; the docstring of the package has its promises."""

    #: What this provider can do.
    features: ClassVar[Features] = Features()
    #: Its address without credentials, fit for a log.
    url: str

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        """Make a backend from its URL, without connecting; raise ValueError when the URL is malformed.

        `prefix` comes before each key in the names of what is stored.
        """

    @abstractmethod
    async def open(self) -> None:
        """Connect. Idempotent; every other method calls it if needed."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect and close every handle. Idempotent."""

    @abstractmethod
    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Accept the messages, in order. Once this is awaited they are kept, as durably as the backend is.

        It returns a coroutine or a future, so that many callers may each await their own messages. When it
        raises, any prefix of the messages may have been kept: the outcome is unknown, and the ids identify
        them. It never retries by itself, because that could double messages unnoticed.
        """

    @abstractmethod
    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        """Accept messages as `append` does, but pass over duplicates; return the ones that were passed over.

        Each message comes with its window, in seconds. Its id is remembered for that long after its
        acceptance, and further messages of the same key and id are passed over. With a window of 0 an id is
        neither compared nor remembered. Comparing, keeping and remembering are one step for each message: its
        id is remembered if and only if it is kept. So one of several publishers at the same time succeeds,
        and the same call, made again within the window after an error, neither doubles nor loses. A backend
        whose features lack `dedupe` keeps all of them.
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
        """Encode and append one message without checking a schema; return it.

        With a `window`, in seconds, it is returned as a Duplicate, and not kept, when a message of its key
        and id was accepted in that time. Raise KeyInvalid, IdInvalid or PayloadUnencodable when it cannot be
        a message.
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
        """Return a handle on a subscription; make the subscription when it does not exist.

        A new one begins at `start`, in seconds since the epoch: 0 is the earliest kept message, infinity the
        next one that is accepted. `lease` is in seconds. Matching keys that appear later are included.
        """

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        """Return a handle as `subscribe` does, but one that must own the subscription to deliver.

        Only a backend whose features declare `order` implements it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exclusive subscriptions")

    @abstractmethod
    async def status(self) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription, sorted by pattern and group.

        It is bounded work for each subscription, however many messages wait.
        """

    @abstractmethod
    async def drop(self, pattern: str, group: str) -> bool:
        """Delete a subscription with all that it has not settled and its dead letters; False if unknown."""

    @abstractmethod
    async def trim(self, retain: Mapping[str, float]) -> int:
        """Remove messages that every subscription which matches their key has settled; return how many.

        A message is settled when it was acked, when it is a dead letter, or when it lies before the start of
        the subscription. It is not settled when it is ready, in flight, released or delayed. A key that no
        subscription matches keeps everything. `retain` has, by pattern, how old a message must be, in
        seconds: the longest of the matching ones counts, 0 when none matches. It also holds for other callers
        until RETAIN_TTL after the last such call: no caller removes what another one wants to keep. A call
        does a bounded part of the work. Dead letters keep their message.
        """

    @abstractmethod
    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Return dead letters, oldest first, that come after the one whose id is `after`."""

    @abstractmethod
    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Make dead letters ready for their own subscription, with fresh counts; return how many.

        Each is moved in one step, so that a crash neither loses nor doubles it. Unknown ids are passed over.
        """

    @abstractmethod
    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Delete dead letters; return how many. Unknown ids are passed over."""

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        """Look at messages, oldest first, without leasing, moving or counting any of them.

        With a group these are the messages of its subscription that are not settled: ready, in flight and
        delayed. Without a group they are all messages that are kept under keys which match `pattern`. `after`
        is the cursor of an earlier call. Messages that are accepted after that call come behind it, so
        repeated calls follow what is published. The cost of a page does not depend on how many messages there
        are. An unknown subscription has none, and is not made. Only a backend whose features declare `peek`
        implements it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot peek")

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        """Keep `value` under `name` in a bucket and return its revision, or 0 when it is not kept.

        With `expected` it is kept only if the entry has this revision; an `expected` of 0 means that there
        must be no entry. Comparing and keeping are one step. After `ttl` seconds by the backend's clock the
        entry is gone; without a `ttl` it stays. A put that is refused changes nothing. Names and buckets are
        any text, and values any bytes. The cost does not depend on how many entries there are. Only a backend
        whose features declare `key_value` implements this and the next three methods.
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
        """Return what weakens the promise on this backend; write nothing. A provider adds its own checks.

        `served` are the subscriptions that have a consumer, None if that is not known: others are orphaned.
        Raise BackendUnavailable when the backend cannot be reached.
        """
        return [feature.result() for feature in self.features.lacking()]
