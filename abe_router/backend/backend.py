"""The methods of a backend, which every provider implements."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

from abe_router.backend.delivery import DeadLetter
from abe_router.backend.features import Features
from abe_router.backend.health import HealthResult, SubscriptionName
from abe_router.backend.rate import TokenGrant
from abe_router.backend.subscription import ExclusiveSubscription, Subscription
from abe_router.backend.time_limit import PUBLISH_TIMEOUT, publish_timeout
from abe_router.backend.views import Entry, Peeked, SubscriptionStatus
from abe_router.messages.message import Duplicate, Message, encode, new_message
from abe_router.messages.pattern import matches

#: How long the `retain` of one caller of `trim` also holds for the others, in seconds.
RETAIN_TTL = 86_400.0


class Backend(ABC):
    """Stores messages and delivers them to subscriptions. The docstring of the package has its promises."""

    #: What this provider can do.
    features: ClassVar[Features] = Features()
    #: Its address without credentials, which may be logged.
    url: str
    #: How long an append may take, in seconds: the option `timeout` of its URL.
    publish_timeout: float = PUBLISH_TIMEOUT

    @property
    def node(self) -> str:
        """The one of several servers that serves it now, as `HOST:PORT`; empty if there is only one."""
        return ""

    @classmethod
    def for_url(cls, url: str) -> type[Backend]:  # noqa: ARG003  a provider may need it
        """Return the class for a URL: this one, or another one that an option of the URL asks for."""
        return cls

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        """Return the backend of a URL, without connecting. Raise ValueError if the URL is malformed.

        `prefix` is put before each key in the names of stored data.
        """

    @abstractmethod
    async def open(self) -> None:
        """Connect. Idempotent; every other method calls it if needed."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect and close every handle. Idempotent."""

    @abstractmethod
    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Store the messages, in order. When the call returns, they are as durable as the backend allows.

        It returns a coroutine or a future, so that many callers may each await their own messages. If it
        raises, the outcome is unknown: any number of the first messages may have been stored, or of the first
        ones of each key where a backend spreads keys over servers. Their ids identify them. It never repeats
        a command by itself, because that could duplicate messages. It ends within `publish_timeout`, with
        PublishTimeout if there is no answer by then.
        """

    @abstractmethod
    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        """Accept messages as `append` does, but skip duplicates. Return the skipped messages.

        Each message comes with its window, in seconds. Its id is remembered for that time after its
        acceptance, and further messages with the same key and id are skipped. With a window of 0, the id is
        neither compared nor remembered. For each message, comparing, storing and remembering are one step:
        its id is remembered if and only if it is stored. So exactly one of several concurrent publishers
        succeeds. After an error, the same call within the window neither duplicates nor loses a message. A
        backend whose features lack `dedupe` stores all messages.
        """

    async def append_within(
        self, windowed: Sequence[tuple[Message, float]], seconds: float
    ) -> Sequence[Message]:
        """Append as `append_once` does, with `seconds` in place of `publish_timeout`.

        The time to connect counts. A provider overrides it if it can tell whether a message was sent.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self.append_once(windowed)
        except TimeoutError:
            raise publish_timeout(f"`{self.url}`", sent=True) from None

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        window: float = 0.0,
        timeout: float | None = None,
    ) -> Message:
        """Encode and append one message without checking a schema. Return the message.

        With a `window`, in seconds, return a Duplicate and store nothing if a message with the same key and
        id was accepted in that time. `timeout`, in seconds, replaces `publish_timeout`. Raise KeyInvalid,
        IdInvalid or PayloadUnencodable if the arguments do not make a message, PublishTimeout or another
        BackendError if it is not known to be accepted.
        """
        message = new_message(key, encode(payload), headers=headers, id=id)
        if timeout is not None:
            if await self.append_within([(message, window)], timeout):
                return Duplicate.of(message)
        elif not window:
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
        """Return a handle on a subscription. Create the subscription if it does not exist.

        A new subscription begins at `start`, in seconds since the epoch: 0 means the earliest stored message,
        infinity the next one that is accepted. `lease` is in seconds. Matching keys that appear later are
        included.
        """

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        """Return a handle as `subscribe` does. It delivers only while it owns the subscription.

        Only a backend whose features declare `order` implements it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exclusive subscriptions")

    @abstractmethod
    async def status(self) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription, sorted by pattern and group.

        The work for each subscription is bounded, whatever the number of waiting messages.
        """

    @abstractmethod
    async def drop(self, pattern: str, group: str) -> bool:
        """Delete a subscription, its unsettled messages and dead letters. Return False if it is unknown."""

    @abstractmethod
    async def trim(self, retain: Mapping[str, float]) -> int:
        """Remove messages that every matching subscription has settled. Return their number.

        A message is settled if it was acked, is a dead letter, or is older than the start of the
        subscription. It is not settled while it is ready, in flight, released or delayed. A key that no
        subscription matches keeps all messages. `retain` maps patterns to the age, in seconds, that a message
        must have. The longest of the matching ages applies, 0 if no pattern matches. It also applies to other
        callers until RETAIN_TTL after the last such call, so no caller removes messages that another one
        retains. A call does a bounded part of the work. Dead letters keep their message.
        """

    @abstractmethod
    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = "", bodies: bool = True
    ) -> Sequence[DeadLetter]:
        """Return the dead letters after the one with the id `after`, oldest first.

        There may be fewer than `limit`, but none only at the end.
        Without `bodies`, the provider may leave the body and the headers of each message empty, so that a
        caller reads many dead letters at little cost.
        """

    @abstractmethod
    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Make dead letters ready again for their own subscription, with new counts. Return their number.

        Each is moved in one step, so a crash neither loses nor duplicates it. Unknown ids are skipped. The
        next deliveries of the message count one more of its `replays`. If it ends as a dead letter again, so
        does the new one, whose `former` is the id of this one.
        """

    @abstractmethod
    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Delete dead letters. Return their number. Unknown ids are skipped."""

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        """Return messages, oldest first, without leasing, moving or counting any of them.

        With a group, return the unsettled messages of its subscription: ready, in flight and delayed. Without
        a group, return all stored messages whose key matches `pattern`. `after` is the cursor of an earlier
        call. Messages that are accepted after that call come after its cursor, so repeated calls follow new
        messages. Raise ValueError if `after` is not a cursor. The cost of a page does not depend on the
        number of messages. An unknown subscription has no messages, and is not created. Only a backend whose
        features declare `peek` implements it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot peek")

    async def peek_end(self, pattern: str, group: str | None) -> str:
        """Return the cursor of a peek that finds only messages accepted after this call.

        Like `peek`, it changes nothing. A provider replaces this walk over all pages by one bounded step.
        """
        cursor = ""
        while page := await self.peek(pattern, group, limit=1000, after=cursor):
            cursor = page[-1].cursor
        return cursor

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        """Store `value` under `name` in a bucket. Return its revision, or 0 if it was not stored.

        With `expected`, the value is stored only if the entry has this revision. An `expected` of 0 means
        that there must be no entry. The comparison and the write are one step. The entry expires after `ttl`
        seconds by the backend's clock; without a `ttl` it stays. A refused put changes nothing. Names and
        buckets may be any text, and values any bytes. The cost does not depend on the number of entries. Only
        a backend whose features declare `key_value` implements this method and the next three.
        """
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    async def get(self, bucket: str, name: str) -> Entry | None:
        """Return an entry, or None if there is none or it has expired."""
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        """Return the unexpired entries of a bucket, by name."""
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        """Delete an entry. Return False if there is none, or if its revision is not `expected`."""
        raise NotImplementedError(f"{type(self).__name__} has no key-value store")

    @abstractmethod
    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        """Grant up to `wanted` tokens of the limiter `name`, which allows all processes `rate` per second."""

    async def check_health(
        self,
        served: Collection[SubscriptionName] | None = None,  # noqa: ARG002  a provider may need them
    ) -> Sequence[HealthResult]:
        """Return what weakens the promise on this backend. Write nothing. A provider adds its own checks.

        `served` are the subscriptions that have a consumer, or None if that is unknown. Other subscriptions
        are orphaned. Raise BackendUnavailable if the backend cannot be reached.
        """
        return [feature.result() for feature in self.features.lacking()]


def retention(retain: Mapping[str, float], key: str) -> float:
    """Return the longest time, in seconds, of the patterns that match the key; 0 if none does."""
    return max((seconds for pattern, seconds in retain.items() if matches(pattern, key)), default=0.0)
