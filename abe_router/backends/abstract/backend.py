"""The adapter: makes a backend of a provider that can only publish and consume."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, Self

from abe_router.backend import (
    Acked,
    Backend,
    Dead,
    DeadLetter,
    Delayed,
    Delivery,
    Features,
    Outcome,
    Released,
    Subscription,
    SubscriptionStatus,
)
from abe_router.backend.rate import TokenGrant, grant
from abe_router.backend.substitute import refuse_in_test
from abe_router.backends.abstract.envelope import wrap
from abe_router.backends.abstract.stream import MessageQueue, Stream, Waiter
from abe_router.errors import BackendError, SubscriptionClosed
from abe_router.messages.message import Message

_log = logging.getLogger(__name__)

Append = Callable[[Sequence[Message]], Awaitable[None]]

#: The group of a consumer that names none; such a provider gets None for it.
DEFAULT_GROUP = "default"
#: What such a provider cannot promise, for a log or a diagnostic.
LIMITS = "messages are delivered at most once: no retries, no dead letters, and a crash loses those in flight"


class AbstractSubscription(Subscription):
    """A handle on the messages that a provider yields for one group and one pattern."""

    def __init__(
        self, pattern: str, group: str, stream: Stream, append: Append, handles: set[AbstractSubscription]
    ) -> None:
        self.pattern, self.group = pattern, group
        self._stream, self._waiter, self._append = stream, Waiter(pattern), append
        self._queue = stream.add(self._waiter)
        self._interrupted = self._closed = False
        self._handles = handles
        handles.add(self)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while not self._closed:
            left = deadline - loop.time()
            if self._queue or self._interrupted or left <= 0:
                self._interrupted = False
                taken = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
                return [Delivery(message, 1, None) for message in taken]
            await self._stream.wait(self._waiter, left)
        raise SubscriptionClosed(f"the subscription {self.name} is closed")

    def interrupt(self) -> None:
        self._interrupted = True
        self._waiter.wake()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        released = [delivery.message for delivery, outcome in settlements if isinstance(outcome, Released)]
        self._queue.extendleft(reversed(released))
        for delivery, outcome in settlements:
            if isinstance(outcome, Delayed | Dead):
                self._log_loss(delivery, LIMITS)
            elif isinstance(outcome, Acked) and outcome.outputs:
                try:
                    await self._append(outcome.outputs)
                except BackendError as error:
                    self._log_loss(delivery, f"its outputs cannot be published: {error}")
        return []

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return []

    async def close(self) -> None:
        self._closed = True
        self._handles.discard(self)
        await self._stream.remove(self._waiter)

    def _log_loss(self, delivery: Delivery, why: str) -> None:
        _log.error("%s/%s: lost %s: %s", self.pattern, self.group, delivery.message.id, why)


class AbstractBackend(Backend):
    """A backend on a provider for Abstract Backend.

    `name` is the provider's name; `prefix` precedes each key that is published. `on_end` is called when the
    provider's messages end for good; without it, that is an error like any other. A provider that is `lent`
    is not closed with the backend.
    """

    features: ClassVar[Features] = Features(
        durable=False,
        groups=False,
        leases=False,
        delays=False,
        dead_letters=False,
        dedupe=False,
        order=False,
        atomic_outputs=False,
        key_value=False,
        peek=False,
    )
    #: The name and the class of the provider, in the classes that `adapt` makes.
    adapted: ClassVar[tuple[str, Any]]

    def __init__(
        self,
        provider: MessageQueue,
        name: str,
        *,
        prefix: str = "",
        on_end: Callable[[], None] | None = None,
        lent: bool = False,
    ) -> None:
        self.url = f"{name}://"
        self._provider, self._name, self._prefix = provider, name, prefix
        self._on_end, self._lent = on_end, lent
        self._streams: dict[str, Stream] = {}
        self._handles: set[AbstractSubscription] = set()
        self._used_until: dict[str, float] = {}
        self._opened = False

    @staticmethod
    def adapt(name: str, provider: Any) -> type[AbstractBackend]:
        """Return the backend class of a provider class."""
        return type("AbstractBackend", (AbstractBackend,), {"adapted": (name, provider)})

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        name, provider = cls.adapted
        if url.partition("://")[2]:
            raise ValueError("environment variables configure such a provider: nothing follows `://`")
        return cls(provider.from_env(), name, prefix=prefix)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:  # noqa: ARG003  it reads the real ones
        name, provider = cls.adapted
        return cls(provider.from_env(), name)

    async def open(self) -> None:
        if not self._opened:
            refuse_in_test(self.url)
            self._opened = True
            _log.warning("provider `%s` is made for Abstract Backend: %s", self._name, LIMITS)

    async def close(self) -> None:
        if kept := sum(stream.buffered for stream in self._streams.values()):
            _log.error(
                "provider `%s`: lost %d messages that it delivered and no handler got", self._name, kept
            )
        for handle in tuple(self._handles):
            await handle.close()
        self._streams.clear()
        self._opened = False
        close = getattr(self._provider, "close", None)
        if not self._lent and inspect.iscoroutinefunction(close):
            await close()

    async def append(self, messages: Sequence[Message]) -> None:
        await self.append_within([(message, 0.0) for message in messages], self.publish_timeout)

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        messages = [message for message, _ in windowed]
        await self.open()
        for message in messages:
            payload = wrap(message)
            try:
                await self._provider.publish(self._prefix + message.key, payload)
            except Exception as error:
                raise BackendError(f"provider `{self._name}`: {type(error).__name__}: {error}") from error

        return []

    async def subscribe(
        self,
        pattern: str,
        group: str,
        *,
        start: float = 0.0,
        lease: float = 30.0,
    ) -> Subscription:
        await self.open()
        stream = self._streams.get(group)
        if stream is None:
            theirs = None if group == DEFAULT_GROUP else group
            stream = self._streams[group] = Stream(self._provider, theirs, self._name, self._on_end)
        return AbstractSubscription(pattern, group, stream, self.append, self._handles)

    async def status(self) -> Sequence[SubscriptionStatus]:
        return []

    async def drop(self, pattern: str, group: str) -> bool:
        return False

    async def trim(self, retain: Mapping[str, float]) -> int:
        return 0

    async def dead_letters(
        self,
        pattern: str,
        group: str,
        *,
        limit: int = 100,
        after: str = "",
        bodies: bool = True,
    ) -> Sequence[DeadLetter]:
        return []

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        return 0

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        return 0

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        tokens, self._used_until[name] = grant(self._used_until.get(name, 0.0), monotonic(), rate, wanted)
        return tokens
