"""One exclusive handle at a time is the owner; a new one begins with all that is unsettled, in order."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from abe_router.backend import ACKED, RELEASED, Acked, Dead, Delayed, Delivery, Outcome
from abe_router.conformance.harness import KEY, PROMPT, SOON, Harness, ack, dead_letter, numbers, take
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import new_message


class ExclusiveTests(Suite):
    """`order_by` relies on this: a former owner hands out nothing, and a new one not too early."""

    @check("order")
    async def test_only_one_handle_is_the_owner(self, harness: Harness) -> None:
        """A bug reorders messages of one value that two handles work on at once."""
        handle, here = await harness.subscribe_exclusive(), await harness.subscribe_exclusive()
        there = await harness.subscribe_exclusive(backend=harness.another())
        await harness.publish(6)
        assert numbers(await take(handle, 2)) == [0, 1]
        await harness.assert_nothing_comes(here)
        await harness.assert_nothing_comes(there)
        assert numbers(await take(handle, 4)) == [2, 3, 4, 5]

    @check("order", measures_time=True)
    async def test_closing_releases_the_ownership_at_once(self, harness: Harness) -> None:
        """A bug blocks an ordered route, for a lease at each reload."""
        for backend, within in ((harness.backend, PROMPT), (harness.another(), SOON)):
            handle = await harness.subscribe_exclusive()
            other = await harness.subscribe_exclusive(backend=backend)
            await harness.publish(3)
            await take(handle, 2)
            came = list(await harness.fetch_during(other, handle.close(), within=within))
            came += await take(other, 3 - len(came))
            assert numbers(came) == [0, 1, 2]
            await ack(other, came)
            await other.close()

    @check("order")
    async def test_ownership_of_a_dead_handle_ends_with_its_lease(self, harness: Harness) -> None:
        """A bug blocks the route if the ownership never ends, and reorders messages if it ends too early."""
        dead = await harness.subscribe_exclusive(lease=self.lease)
        alive = await harness.subscribe_exclusive(backend=harness.another())
        await harness.publish(5)
        began = time.monotonic()
        held = await take(dead, 3)
        await ack(dead, held[:1])
        came = await take(alive, 4, within=self.lease + SOON)
        assert time.monotonic() - began > self.lease - 0.01
        assert numbers(came) == [1, 2, 3, 4]
        assert [each.deliveries for each in came] == [2, 2, 1, 1]
        await ack(alive, came)

    @check("order")
    async def test_new_owner_gets_what_waits_for_its_next_attempt(self, harness: Harness) -> None:
        """A bug reorders what is behind a retry that the new owner does not know of."""
        handle = await harness.subscribe_exclusive()
        await harness.publish(6)
        held = await take(handle, 5)
        (again,) = await handle.postpone([(held[1], 50.0)])
        assert again is not None
        outcomes: list[Outcome] = [ACKED, Delayed(40.0), RELEASED]
        assert not await handle.settle(list(zip((held[0], *held[2:4]), outcomes, strict=True)))
        await handle.close()
        other = await harness.subscribe_exclusive(backend=harness.another())
        came = await take(other, 2, within=SOON)
        came += await take(other, 3)
        assert numbers(came) == [1, 2, 3, 4, 5]
        assert [each.message.attempt for each in came] == [2, 2, 1, 1, 1]
        assert [each.deliveries for each in came] == [3, 2, 1, 2, 1]
        assert [each.failed_at is not None for each in came] == [True, True, False, False, False]
        assert 45 < came[0].wait <= 50
        assert 35 < came[1].wait <= 40
        assert [each.wait for each in came[2:]] == [0, 0, 0]
        assert await harness.counts() == (0, 3, 2, 0)
        assert not await other.settle([(came[0], RELEASED)])
        (retry,) = await take(other, 1)
        assert numbers([retry]) == [1]
        assert 45 < retry.wait <= 50
        await ack(other, [retry, *came[1:]])

    @check("order")
    async def test_former_owner_gets_and_changes_nothing(self, harness: Harness) -> None:
        """A bug reorders the messages of a paused process that lost the ownership."""
        handle = await harness.subscribe_exclusive(lease=self.lease)
        other = await harness.subscribe_exclusive()
        await harness.publish(8)
        held = await take(handle, 6)
        # The new owner takes only one, but the old one holds none of them any more.
        came = await take(other, 1, within=self.lease + SOON)
        assert numbers(came) == [0]
        await harness.assert_nothing_comes(handle)
        died = Dead(dead_letter(held[2]))
        outcomes: list[Outcome] = [ACKED, RELEASED, died, Delayed(0.0)]
        stale = list(zip(held, outcomes, strict=False))
        assert await handle.extend(held) == held
        assert await handle.settle(stale) == held[:4]
        assert await handle.postpone([(held[4], 0.0)]) == [None]
        await handle.close()
        came += await take(other, 7)
        assert numbers(came) == list(range(8))
        assert [each.deliveries for each in came] == [2] * 6 + [1] * 2
        await ack(other, came)
        assert await harness.counts() == (0, 0, 0, 0)

    @check("order")
    async def test_waiting_and_extending_keep_the_ownership(self, harness: Harness) -> None:
        """A bug reorders messages of a quiet consumer, or of one with a long handler."""
        lease = max(1.0, self.lease)  # a loaded machine extends it late
        handle = await harness.subscribe_exclusive(lease=lease)
        other = await harness.subscribe_exclusive(lease=lease)
        waiting = asyncio.create_task(handle.fetch(1, 20.0))
        await harness.pause()
        await harness.assert_nothing_comes(other, 2 * lease)
        await harness.publish(3)
        done, _ = await asyncio.wait([waiting], timeout=lease)
        assert done, "the handle that waits is no longer the owner"
        held = list(await waiting)
        for _ in range(5):
            assert not await handle.extend(held)
            await harness.assert_nothing_comes(other, lease / 4)
        assert numbers(await take(handle, 2)) == [1, 2]

    @check("order")
    async def test_owner_without_competitors_keeps_what_it_holds(self, harness: Harness) -> None:
        """A bug duplicates what a paused process held, although no other handle could take it."""
        handle = await harness.subscribe_exclusive(lease=self.lease)
        await harness.publish(3)
        held = await take(handle, 2)
        await asyncio.sleep(1.5 * self.lease)
        came = await take(handle, 1)
        assert numbers(came) == [2]
        assert not await handle.extend(held)
        await ack(handle, [*held, *came])

    @check("order")
    async def test_postponed_delivery_stays_in_flight(self, harness: Harness) -> None:
        """A bug reorders a retry that is fetched again, with another message in its place."""
        handle = await harness.subscribe_exclusive()
        await harness.publish(2)
        first, second = await take(handle, 2)
        (retry,) = await handle.postpone([(first, 30.0)])
        assert retry is not None
        assert (retry.message.id, retry.message.attempt) == (first.message.id, 2)
        assert (retry.deliveries, retry.wait) == (2, 30.0)
        assert retry.failed_at is not None
        assert await harness.counts() == (0, 1, 1, 0)
        assert await handle.settle([(first, ACKED)]) == [first]
        assert await handle.postpone([(first, 0.0), (second, 0.0)]) != [None, None]
        await harness.assert_nothing_comes(handle)
        (again,) = await handle.postpone([(retry, 0.0)])
        assert again is not None
        assert (again.message.attempt, again.failed_at) == (3, retry.failed_at)
        assert not await handle.extend([again])
        await ack(handle, [again])
        assert sum((await harness.counts())[:3]) == 1

    @check("order")
    async def test_postponed_delivery_that_is_settled_is_not_counted(self, harness: Harness) -> None:
        """A bug misleads an operator with messages that seem to wait long after they were handled."""
        handle = await harness.subscribe_exclusive()
        await harness.publish(3)
        retries = await handle.postpone([(each, 0.01) for each in await take(handle, 3)])
        held = [each for each in retries if each is not None]
        emitted = Acked((new_message("orders.priced", b"1"),))
        outcomes: list[Outcome] = [ACKED, emitted, Dead(dead_letter(held[2]))]
        for delivery, outcome in zip(held, outcomes, strict=True):
            assert not await handle.settle([(delivery, outcome)])
        assert await harness.counts() == (0, 0, 0, 1)

    @check("order")
    async def test_returned_messages_come_first_and_in_order(self, harness: Harness) -> None:
        """A bug reorders what is released or delayed, by its due time or behind what is new."""
        handle = await harness.subscribe_exclusive()
        await harness.publish(6)
        held = await take(handle, 4)
        assert not await handle.settle([(held[3], RELEASED), (held[0], Delayed(30.0))])
        assert not await handle.settle([(held[1], Delayed(0.01)), (held[2], RELEASED)])
        came = [each for _ in range(6) for each in await take(handle, 1)]
        assert numbers(came) == list(range(6))

    @check("order", "leases", measures_time=True)
    async def test_ownership_waits_for_leases_of_other_handles(self, harness: Harness) -> None:
        """A bug duplicates what a consumer without order has in flight while one with order begins."""
        other = await harness.subscribe()
        await harness.publish(4)
        held = await take(other, 2)
        handle = await harness.subscribe_exclusive()
        await harness.assert_nothing_comes(handle)
        await ack(other, held[:1])
        came = list(await harness.fetch_during(handle, ack(other, held[1:]), within=SOON))
        assert numbers(came + await take(handle, 2 - len(came))) == [2, 3]

    @check("order")
    async def test_exclusive_handles_read_each_key_in_order(self, harness: Harness) -> None:
        """A bug reorders a key that two handles of a pattern read at once."""
        handles = [
            await harness.subscribe_exclusive("k.*", backend=b) for b in (harness.backend, harness.another())
        ]
        await harness.backend.append([new_message(f"k.{n % 4}", b"%d" % n) for n in range(80)])
        by_key: dict[str, list[Delivery]] = defaultdict(list)
        async with asyncio.timeout(10.0):
            while sum(map(len, by_key.values())) < 80:
                for handle in handles:
                    fetched = await handle.fetch(7, 0.02)
                    for delivery in fetched:
                        by_key[delivery.message.key].append(delivery)
                    await ack(handle, fetched)
        for key, deliveries in by_key.items():
            assert numbers(deliveries) == list(range(int(key[2:]), 80, 4))

    @check("order")
    async def test_cancelled_or_interrupted_fetch_changes_no_order(self, harness: Harness) -> None:
        """A bug reorders what came for a cancelled fetch, behind what came later."""
        handle = await harness.subscribe_exclusive()
        came: list[int] = []
        for number in range(40):
            await harness.backend.append([new_message(KEY, b"%d" % (2 * number + n)) for n in range(2)])
            fetching = asyncio.create_task(handle.fetch(1, 0.2))
            for _ in range(number % 13):
                await asyncio.sleep(0)
            if number % 2:
                fetching.cancel()
            else:
                handle.interrupt()
            await asyncio.wait({fetching})
            if not fetching.cancelled():
                fetched = fetching.result()
                came += numbers(fetched)
                await ack(handle, fetched)
        await harness.pause()
        while len(came) < 80:
            fetched = await take(handle, 1)
            came += numbers(fetched)
            await ack(handle, fetched)
        assert came == list(range(80))
