"""The store of one test, and the few verbs that all tests are written in."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

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
#: A lease that does not run out during a test, in seconds.
LONG = 60.0
#: How soon a waiting fetch has what became ready, in seconds: new messages from anywhere, and what a handle
#: of the same backend made ready.
PROMPT = 0.5
#: How soon it has what was made ready elsewhere, or by a lease that ran out, in seconds.
SOON = 2.0


class Store:
    """What is kept under one name, nothing at first, and all backends that were opened on it."""

    def __init__(self, make_backend: Callable[[str], Backend], pause: float) -> None:
        self.name = f"t{secrets.token_hex(5)}."
        self._make_backend, self._pause = make_backend, pause
        self._opened: list[Backend] = []
        self.backend = self._new()

    @property
    def features(self) -> Features:
        """What the provider says it can do."""
        return self.backend.features

    def another(self) -> Backend:
        """Return a second backend on the same store, as another process has it; else the first."""
        return self._new() if self.features.processes else self.backend

    async def reopen(self) -> Backend:
        """Close the backend and return a new one on the same store; of what is not durable, the same."""
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

    async def occupy(
        self,
        pattern: str = KEY,
        group: str = GROUP,
        *,
        lease: float = LONG,
        backend: Backend | None = None,
    ) -> ExclusiveSubscription:
        """Return an exclusive handle."""
        return await (backend or self.backend).subscribe_exclusive(pattern, group, lease=lease)

    async def status(self, pattern: str = KEY, group: str = GROUP) -> SubscriptionStatus:
        """Return the counts of one subscription."""
        found = [s for s in await self.backend.status() if (s.pattern, s.group) == (pattern, group)]
        assert len(found) == 1, f"status names `{pattern}/{group}` {len(found)} times"
        return found[0]

    async def counts(self, pattern: str = KEY, group: str = GROUP) -> tuple[int, int, int, int]:
        """Return how many are ready, in flight, delayed, dead."""
        s = await self.status(pattern, group)
        return s.ready, s.in_flight, s.delayed, s.dead

    async def pause(self) -> None:
        """Wait until a call that was started before has surely begun to wait."""
        await asyncio.sleep(self._pause)

    async def nothing(self, handle: Subscription, wait: float | None = None) -> None:
        """Fail when something comes within `wait` seconds, or as soon as what is ready comes."""
        came = await handle.fetch(100, self._pause if wait is None else wait)
        assert not came, f"{len(came)} came that should not, such as number {numbers(came[:1])}"

    async def awaited(
        self, handle: Subscription, make_ready: Coroutine[Any, Any, Any], *, within: float
    ) -> Sequence[Delivery]:
        """Make something ready while the handle waits for it; return what ended the wait, in that time."""
        fetching = asyncio.create_task(handle.fetch(10, 20.0))
        await self.pause()
        assert not fetching.done(), "it did not wait"
        await make_ready
        began = time.monotonic()
        fetched = await fetching
        took = time.monotonic() - began
        assert took <= within, f"the wait of a fetch lasted {took:.2f} s more, not {within:.2f}"
        return fetched

    def _new(self) -> Backend:
        backend = self._make_backend(self.name)
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


def once(expected: Iterable[Message], came: Iterable[Delivery]) -> None:
    """Fail unless each expected message came, exactly once, and no other; duplicates are counted."""
    wanted = Counter(message.id for message in expected)
    got = Counter(delivery.message.id for delivery in came)
    lost, extra = wanted - got, got - wanted
    assert wanted == got, (
        f"{lost.total()} of {wanted.total()} messages were lost, {extra.total()} came beyond once"
    )


def numbers(deliveries: Iterable[Delivery]) -> list[int]:
    """Return the payloads, which `publish` numbered."""
    return [int(delivery.message.body) for delivery in deliveries]


def letter(delivery: Delivery, changes: Mapping[str, Any] | None = None) -> DeadLetter:
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
