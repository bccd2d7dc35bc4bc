"""What the tests are written in: the harness of one test, assertions, and handles that work side by side."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from abe_router.backend import (
    ACKED,
    Backend,
    DeadLetter,
    Delivery,
    ExclusiveSubscription,
    Features,
    Reason,
    Subscription,
    SubscriptionStatus,
)
from abe_router.messages.message import Message, new_message

#: Key and group of a test that needs only one.
KEY, GROUP = "orders.created", "billing"
#: A lease that does not end during a test, in seconds.
LONG = 60.0
#: How soon a waiting fetch returns what became ready, in seconds: new messages, and what a handle of the same
#: backend made ready.
PROMPT = 0.5
#: How soon it returns what another backend made ready, or the end of a lease, in seconds.
SOON = 2.0


class Harness:
    """An empty prefix for one test, and all backends that were opened on it."""

    def __init__(self, make_backend: Callable[[str], Backend], pause: float) -> None:
        self.prefix = f"t{secrets.token_hex(5)}."
        self._make_backend, self._pause = make_backend, pause
        self._opened: list[Backend] = []
        self.backend = self._new()

    @property
    def features(self) -> Features:
        """The features that the provider declares."""
        return self.backend.features

    def another(self) -> Backend:
        """Return a second backend on the same prefix, as another process has it; else the first."""
        return self._new() if self.features.processes else self.backend

    async def reopen(self) -> Backend:
        """Close the backend and return a new one on the same prefix, or the same if it is not durable."""
        await self.backend.close()
        if self.features.durable:
            self.backend = self._new()
        return self.backend

    async def close(self) -> None:
        """Close every backend."""
        for backend in self._opened:
            await backend.close()

    async def publish(self, count: int = 1, key: str = KEY, backend: Backend | None = None) -> list[Message]:
        """Append messages in one call and return them; their payloads are their numbers."""
        messages = [new_message(key, b"%d" % n) for n in range(count)]
        await (backend or self.backend).append(messages)
        return messages

    async def subscribe(
        self, pattern: str = KEY, group: str = GROUP, *, start: float = 0.0, lease: float = LONG
    ) -> Subscription:
        """Return a handle of the first backend."""
        return await self.backend.subscribe(pattern, group, start=start, lease=lease)

    async def subscribe_exclusive(
        self,
        pattern: str = KEY,
        group: str = GROUP,
        *,
        lease: float = LONG,
        backend: Backend | None = None,
    ) -> ExclusiveSubscription:
        """Return an exclusive handle, of the first backend unless another is given."""
        return await (backend or self.backend).subscribe_exclusive(pattern, group, lease=lease)

    async def status(self, pattern: str = KEY, group: str = GROUP) -> SubscriptionStatus:
        """Return the status of one subscription."""
        found = [s for s in await self.backend.status() if (s.pattern, s.group) == (pattern, group)]
        assert len(found) == 1, f"status has `{pattern}/{group}` {len(found)} times"
        return found[0]

    async def counts(self, pattern: str = KEY, group: str = GROUP) -> tuple[int, int, int, int]:
        """Return how many are ready, in flight, delayed, dead."""
        s = await self.status(pattern, group)
        return s.ready, s.in_flight, s.delayed, s.dead

    async def pause(self) -> None:
        """Wait until a call that was started before surely waits."""
        await asyncio.sleep(self._pause)

    async def assert_nothing_comes(self, handle: Subscription, wait: float | None = None) -> None:
        """Fail when a delivery comes within `wait` seconds, by default in a pause."""
        came = await handle.fetch(100, self._pause if wait is None else wait)
        assert not came, f"{len(came)} came that should not, the first with number {numbers(came[:1])}"

    async def fetch_during(
        self, handle: Subscription, make_ready: Coroutine[Any, Any, Any], *, within: float
    ) -> Sequence[Delivery]:
        """Return what a waiting fetch returns once `make_ready` has run; fail when that takes longer."""
        fetching = asyncio.create_task(handle.fetch(10, 20.0))
        await self.pause()
        assert not fetching.done(), "the fetch did not wait"
        await make_ready
        began = time.monotonic()
        fetched = await fetching
        took = time.monotonic() - began
        assert took <= within, f"the fetch waited {took:.2f} s more, not at most {within:.2f} s"
        return fetched

    def _new(self) -> Backend:
        backend = self._make_backend(self.prefix)
        self._opened.append(backend)
        return backend


async def take(handle: Subscription, count: int, *, within: float = 10.0) -> list[Delivery]:
    """Fetch until `count` deliveries have come; fail when they do not within that many seconds."""
    deadline = time.monotonic() + within
    taken: list[Delivery] = []
    while len(taken) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(taken)} of {count} deliveries came within {within:.1f} s"
        limit = count - len(taken)
        fetched = await handle.fetch(limit, min(left, 1.0))
        assert len(fetched) <= limit, f"fetch of at most {limit} returned {len(fetched)}"
        taken += fetched
    return taken


async def ack(handle: Subscription, deliveries: Sequence[Delivery]) -> None:
    """Settle as handled; fail when one is refused."""
    refused = await handle.settle([(delivery, ACKED) for delivery in deliveries])
    assert not refused, f"{len(refused)} of {len(deliveries)} settlements were refused"


async def steps(count: int) -> None:
    """Let the event loop run `count` rounds."""
    for _ in range(count):
        await asyncio.sleep(0)


async def quickest(call: Callable[[], Coroutine[Any, Any, Any]], times: int = 20) -> float:
    """Return how long the quickest of some calls took, in seconds: load makes calls slower, never quicker."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return min(took)


def assert_exactly_once(expected: Iterable[Message], came: Iterable[Delivery]) -> None:
    """Fail unless each expected message came exactly once, and no other message did."""
    wanted = Counter(message.id for message in expected)
    got = Counter(delivery.message.id for delivery in came)
    lost, extra = wanted - got, got - wanted
    assert wanted == got, (
        f"{lost.total()} of {wanted.total()} messages were lost, {extra.total()} came too often"
    )


def assert_as_quick(many: float, few: float, what: str) -> None:
    """Fail when a call takes clearly longer with many than with few; both are times in seconds."""
    assert many <= 3 * few + 0.0005, f"{what}: {many * 1e3:.2f} ms with many, {few * 1e3:.2f} ms with few"


def numbers(deliveries: Iterable[Delivery]) -> list[int]:
    """Return the payloads, which `publish` numbered."""
    return [int(delivery.message.body) for delivery in deliveries]


def dead_letter(delivery: Delivery, changes: Mapping[str, Any] | None = None) -> DeadLetter:
    """Return a dead letter for the delivery."""
    fields: dict[str, Any] = {
        "route": f"{delivery.message.key}/{GROUP}",
        "message": delivery.message,
        "reason": Reason("failed", "ValueError", "no stock"),
        "attempts": delivery.message.attempt,
        "deliveries": delivery.deliveries,
        "first_failed_at": 1_700_000_000.25,
        "last_failed_at": 1_700_000_001.5,
    }
    return DeadLetter(**{**fields, **(changes or {})})


class Consumers:
    """Fetches and acks with several handles at once while its `async with` block runs."""

    def __init__(self, handles: Sequence[Subscription], *, limit: int = 10) -> None:
        self._handles, self._limit = handles, limit
        self._stopped = False
        self._progress = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        #: What was fetched and acked so far.
        self.handled: list[Delivery] = []

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(self._consume(handle)) for handle in self._handles]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        for handle in self._handles:
            handle.interrupt()
        await asyncio.gather(*self._running)

    async def has_handled(self, count: int, *, within: float = 15.0) -> None:
        """Wait until `count` deliveries are handled; fail when they are not within that many seconds."""
        try:
            async with asyncio.timeout(within):
                while len(self.handled) < count and not any(task.done() for task in self._running):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.handled)} of {count} were handled in {within:.1f} s") from None

    async def _consume(self, handle: Subscription) -> None:
        try:
            while not self._stopped:
                fetched = await handle.fetch(self._limit, 5.0)
                await ack(handle, fetched)
                self.handled += fetched
                self._progress.set()
        finally:
            self._progress.set()
