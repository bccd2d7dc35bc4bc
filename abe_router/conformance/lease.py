"""Messages of a dead worker come back, and those of a live one do not."""

from __future__ import annotations

import asyncio
import time

from abe_router.backend import RELEASED
from abe_router.conformance.harness import LONG, SOON, Harness, ack, assert_exactly_once, numbers, take
from abe_router.conformance.suite import Suite, check


class LeaseTests(Suite):
    """Leases end on time, without traffic, and only if they are not renewed."""

    @check("leases")
    async def test_messages_of_a_dead_worker_come_back_without_traffic(self, harness: Harness) -> None:
        """A bug loses what a killed worker held, if reclaiming is missing or waits for traffic."""
        dead, alive = await harness.subscribe(lease=self.lease), await harness.subscribe()
        sent = await harness.publish(3)
        began = time.monotonic()
        await take(dead, 3)
        came = await take(alive, 3, within=self.lease + SOON)
        assert time.monotonic() - began > self.lease - 0.01
        assert_exactly_once(sent, came)
        assert numbers(came) == [0, 1, 2]

    @check("leases")
    async def test_crash_counts_as_a_delivery_but_not_as_an_attempt(self, harness: Harness) -> None:
        """A bug redelivers a message that kills each worker without end, or a deploy uses up the attempts."""
        await harness.publish()
        for nth in (1, 2, 3):
            handle = await harness.subscribe(lease=self.lease / 2)
            (delivery,) = await take(handle, 1, within=self.lease + SOON)
            assert (delivery.deliveries, delivery.message.attempt, delivery.failed_at) == (nth, 1, None)

    @check("leases")
    async def test_closed_handle_holds_nothing_beyond_its_lease(self, harness: Harness) -> None:
        """A bug loses what a worker holds whose consumer is removed as it leaves."""
        leaving = await harness.subscribe(lease=self.lease)
        staying = await harness.subscribe(lease=self.lease)
        sent = await harness.publish(5)
        await take(leaving, 5)
        await leaving.close()
        assert_exactly_once(sent, await take(staying, 5, within=self.lease + SOON))

    @check("leases")
    async def test_many_messages_come_back_at_once(self, harness: Harness) -> None:
        """A bug loses what is beyond the first page of pending messages."""
        dead, alive = await harness.subscribe(lease=self.lease), await harness.subscribe()
        sent = await harness.publish(2_000)
        await take(dead, 2_000)
        came = await take(alive, 2_000, within=self.lease + SOON + 3.0)
        assert_exactly_once(sent, came)
        await ack(alive, came)
        await harness.assert_nothing_comes(alive)

    @check("leases", measures_time=True)
    async def test_extending_keeps_the_lease(self, harness: Harness) -> None:
        """A bug duplicates a message whose handler takes longer than the lease."""
        lease = max(0.1, self.lease)
        slow, idle = await harness.subscribe(lease=lease), await harness.subscribe(lease=lease)
        await harness.publish(4)
        held = await take(slow, 4)
        waiting = asyncio.create_task(idle.fetch(10, lease * 2.5))
        for _ in range(8):
            await asyncio.sleep(lease / 3)
            assert not await slow.extend(held)
        assert not await waiting
        await ack(slow, held)
        await harness.assert_nothing_comes(idle)

    @check("leases")
    async def test_extending_returns_deliveries_whose_lease_is_lost(self, harness: Harness) -> None:
        """A bug duplicates what a paused worker continues while another one has the message."""
        late, other = await harness.subscribe(lease=self.lease), await harness.subscribe()
        await harness.publish(4)
        held = await take(late, 4)
        taken = await take(other, 2, within=self.lease + SOON)
        lost = {d for d in held if d.message.id in {t.message.id for t in taken}}
        assert set(await late.extend(held)) == lost
        await ack(late, [d for d in held if d not in lost])
        await ack(other, taken)
        await harness.assert_nothing_comes(other, self.lease)

    @check("leases")
    async def test_each_handle_has_its_own_lease(self, harness: Harness) -> None:
        """A bug duplicates what a worker with a longer lease holds, as during a change of the lease."""
        patient = await harness.subscribe(lease=LONG)
        hasty = await harness.subscribe(lease=self.lease)
        await harness.publish(4)
        kept = await take(patient, 2)
        lapsed = await take(hasty, 2)
        third = await harness.subscribe()
        back = await take(third, 2, within=self.lease + SOON)
        assert numbers(back) == numbers(lapsed)
        await harness.assert_nothing_comes(third, self.lease)
        await ack(patient, kept)

    @check("leases")
    async def test_handle_does_not_get_again_what_it_holds(self, harness: Harness) -> None:
        """A bug duplicates what a worker reads again from its own pending messages."""
        handle = await harness.subscribe()
        await harness.publish(10)
        held = await take(handle, 4)
        more = await take(handle, 6)
        assert numbers([*held, *more]) == list(range(10))
        await harness.assert_nothing_comes(handle, self.lease)

    @check("leases")
    async def test_delivery_whose_lease_ended_is_settled_if_no_other_has_it(self, harness: Harness) -> None:
        """A bug duplicates work that is a little late, although no other handle took it over."""
        handle = await harness.subscribe(lease=self.lease / 3)
        await harness.publish(3)
        first, second, third = await take(handle, 3)
        await asyncio.sleep(self.lease)
        assert sum(await harness.counts()) == 3
        assert not await handle.extend([second])
        assert not await handle.settle([(third, RELEASED)])
        await ack(handle, [first, second])
        (again,) = await take(handle, 1)
        assert (again.message.id, again.deliveries) == (third.message.id, 1)
        await ack(handle, [again])
        await harness.assert_nothing_comes(handle, self.lease)
