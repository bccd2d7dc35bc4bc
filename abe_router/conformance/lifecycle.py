"""Opening, closing and interrupting, in any order and at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from abe_router.backend import ACKED, Delivery, Subscription
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    SOON,
    Harness,
    ack,
    assert_exactly_once,
    numbers,
    steps,
    take,
)
from abe_router.conformance.suite import Suite, check
from abe_router.errors import SubscriptionClosed


class LifecycleTests(Suite):
    """A consumer can stop at any time, at once, and nothing is left behind."""

    async def _handles(self, harness: Harness) -> list[Subscription]:
        """Return a handle, and an exclusive one if the provider has them."""
        handles: list[Subscription] = [await harness.subscribe()]
        if harness.features.order:
            handles.append(await harness.subscribe_exclusive("orders.in_order"))
        return handles

    @check()
    async def test_opening_and_closing_are_idempotent(self, harness: Harness) -> None:
        """A bug makes a second stop fail, because a part was stopped before."""
        backend = harness.backend
        await backend.close()
        await backend.open()
        await backend.open()
        handle = await harness.subscribe()
        await handle.close()
        await handle.close()
        await backend.close()
        await backend.close()

    @check()
    async def test_every_method_opens_the_backend_if_needed(self, harness: Harness) -> None:
        """A bug loses the messages of a publisher that does not open first."""
        sent = await harness.publish()
        assert_exactly_once(sent, await take(await harness.another().subscribe(KEY, GROUP), 1))
        assert await harness.another().dead_letters(KEY, GROUP) is not None
        assert await harness.another().status()

    @check()
    async def test_closing_a_handle_ends_its_fetch(self, harness: Harness) -> None:
        """A bug blocks a consumer whose key is silent, when it stops."""
        for handle in await self._handles(harness):
            await _assert_closes(harness, [handle], handle.close)

    @check()
    async def test_closing_the_backend_ends_every_fetch(self, harness: Harness) -> None:
        """A bug blocks a program whose keys are silent, when it stops."""
        handles = [*await self._handles(harness), await harness.subscribe("other.#")]
        await _assert_closes(harness, handles, harness.backend.close)
        for handle in handles:
            await _assert_closed(handle)

    @check()
    async def test_fetch_on_a_closed_handle_raises(self, harness: Harness) -> None:
        """A bug loses what is handed to a consumer that has left; or it asks again without end."""
        for handle in await self._handles(harness):
            other = await harness.subscribe(handle.pattern)
            await handle.close()
            sent = await harness.publish(3, handle.pattern)
            for _ in range(2):
                await _assert_closed(handle)
            came = await take(other, 3, within=1.0)
            assert_exactly_once(sent, came)
            await ack(other, came)

    @check()
    async def test_handle_stays_closed_when_its_backend_is_opened_again(self, harness: Harness) -> None:
        """A bug loses what a consumer fetches after it was stopped."""
        handle = await harness.subscribe()
        await harness.backend.close()
        await _assert_closed(handle)
        await harness.backend.open()
        sent = await harness.publish(2)
        await _assert_closed(handle)
        assert_exactly_once(sent, await take(await harness.subscribe(), 2))

    @check("leases")
    async def test_closing_during_a_fetch_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what arrived at the moment of the closing; it is delivered, or comes back."""
        came: list[Delivery] = []
        sent = []
        for number in range(40):
            handle = await harness.subscribe(lease=self.lease)
            fetching = asyncio.create_task(handle.fetch(10, 5.0))
            publishing = asyncio.create_task(harness.publish(2))
            await (asyncio.sleep(0.001) if number % 2 else steps(number // 2))
            await handle.close()
            sent += await publishing
            try:
                fetched = await fetching
            except SubscriptionClosed:
                continue
            refused = await handle.settle([(delivery, ACKED) for delivery in fetched])
            came += [delivery for delivery in fetched if delivery not in refused]
        rest = await take(await harness.subscribe(), len(sent) - len(came), within=self.lease + SOON)
        assert_exactly_once(sent, [*came, *rest])

    @check()
    async def test_interrupting_ends_the_wait(self, harness: Harness) -> None:
        """A bug blocks a consumer that waits its time before it stops."""
        handle = await harness.subscribe()
        fetching = asyncio.create_task(handle.fetch(10, 30.0))
        await harness.pause()
        handle.interrupt()
        async with asyncio.timeout(5.0):
            assert not await fetching

    @check()
    async def test_interrupting_before_a_fetch_counts_for_one_fetch(self, harness: Harness) -> None:
        """A bug blocks a consumer that is interrupted between two fetches, or interrupts all later ones."""
        handle = await harness.subscribe()
        handle.interrupt()
        handle.interrupt()
        async with asyncio.timeout(5.0):
            assert not await handle.fetch(10, 30.0)
        fetching = asyncio.create_task(handle.fetch(10, 10.0))
        await asyncio.sleep(0.1)
        assert not fetching.done()
        sent = await harness.publish()
        assert_exactly_once(sent, await fetching)

    @check()
    async def test_interrupting_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what arrives at the moment of the interruption."""
        handle = await harness.subscribe()
        came: list[Delivery] = []
        sent = []
        for _ in range(60):
            fetching = asyncio.create_task(handle.fetch(10, 5.0))
            publishing = asyncio.create_task(harness.publish(2))
            await asyncio.sleep(0.001)
            handle.interrupt()
            came += await fetching
            sent += await publishing
        came += await take(handle, len(sent) - len(came)) if len(came) < len(sent) else []
        assert_exactly_once(sent, came)

    @check("leases")
    async def test_reopening_finds_everything_again(self, harness: Harness) -> None:
        """A bug loses what was in flight or ready at a restart."""
        handle = await harness.subscribe(lease=self.lease)
        sent = await harness.publish(10)
        held = await take(handle, 4)
        await ack(handle, held[:2])
        await harness.reopen()
        again = await harness.subscribe()
        came = await take(again, 8, within=self.lease + SOON)
        assert_exactly_once(sent[2:], came)
        assert sorted(numbers(came)) == list(range(2, 10))
        await ack(again, came)
        await harness.assert_nothing_comes(again, self.lease)

    @check()
    async def test_methods_may_run_at_the_same_time(self, harness: Harness) -> None:
        """A bug loses a reply, if one call gets the reply of another."""
        handle = await harness.subscribe()
        quiet = await harness.subscribe("quiet.key")
        waiting = asyncio.create_task(quiet.fetch(1, 30.0))
        for _ in range(10):
            sent, statuses, dead_letters, _, fetched = await asyncio.gather(
                harness.publish(3),
                harness.backend.status(),
                harness.backend.dead_letters(KEY, GROUP),
                harness.backend.take_tokens("route", 1_000.0, 1),
                handle.fetch(10, 0.0),
            )
            assert {s.pattern for s in statuses} == {KEY, "quiet.key"}
            assert list(dead_letters) == []
            came = [*fetched, *(await take(handle, 3 - len(fetched)) if len(fetched) < 3 else [])]
            assert_exactly_once(sent, came)
            await ack(handle, came)
        quiet.interrupt()
        assert not await waiting


async def _assert_closes(
    harness: Harness, handles: Sequence[Subscription], close: Callable[[], Awaitable[None]]
) -> None:
    """Fail unless waiting fetches raise SubscriptionClosed soon after the closing."""
    fetching = [asyncio.create_task(handle.fetch(10, 30.0)) for handle in handles]
    await harness.pause()
    assert not any(fetch.done() for fetch in fetching), "a fetch did not wait"
    async with asyncio.timeout(5.0):
        await close()
        ended = await asyncio.gather(*fetching, return_exceptions=True)
    assert [type(result) for result in ended] == [SubscriptionClosed] * len(handles)


async def _assert_closed(handle: Subscription) -> None:
    """Fail unless a fetch raises SubscriptionClosed at once."""
    async with asyncio.timeout(5.0):
        try:
            fetched = await handle.fetch(10, 30.0)
        except SubscriptionClosed:
            return
    raise AssertionError(f"a closed handle returned {len(fetched)} deliveries")
