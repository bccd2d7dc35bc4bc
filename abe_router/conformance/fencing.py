"""A handle that lost its lease changes nothing."""

from __future__ import annotations

import asyncio

from abe_router.backend import ACKED, RELEASED, Dead, Delayed, Delivery, Outcome, Subscription
from abe_router.conformance.harness import SOON, Harness, ack, dead_letter, take
from abe_router.conformance.suite import Suite, check


class FencingTests(Suite):
    """A worker that stood still beyond its lease goes on, while another one has its message."""

    async def _overtaken(self, harness: Harness) -> tuple[Subscription, Delivery, Subscription, Delivery]:
        """Return a handle and delivery whose lease is lost, and those that took over."""
        stale, owner = await harness.subscribe(lease=self.lease), await harness.subscribe()
        await harness.publish()
        (old,) = await take(stale, 1)
        (new,) = await take(owner, 1, within=self.lease + SOON)
        assert (new.message.id, new.deliveries) == (old.message.id, 2)
        return stale, old, owner, new

    async def _refused(self, harness: Harness, outcome: Outcome | None) -> None:
        """Fail unless a stale outcome is refused and changes nothing, also for the new holder."""
        stale, old, owner, new = await self._overtaken(harness)
        chosen = outcome or Dead(dead_letter(old))
        refused = await stale.settle([(old, chosen)])
        assert len(refused) == 1
        assert refused[0] is old
        assert await harness.counts() == (0, 1, 0, 0)
        assert not await owner.settle([(new, RELEASED)])
        (again,) = await take(owner, 1)
        assert (again.deliveries, again.message.attempt, again.failed_at) == (2, 1, None)
        await ack(owner, [again])
        assert await harness.counts() == (0, 0, 0, 0)

    @check("leases")
    async def test_stale_ack_is_refused(self, harness: Harness) -> None:
        """A bug loses the message whose new holder fails, acked by the old one."""
        await self._refused(harness, ACKED)

    @check("leases")
    async def test_stale_release_is_refused(self, harness: Harness) -> None:
        """A bug duplicates a message that is ready while its new holder works on it."""
        await self._refused(harness, RELEASED)

    @check("leases", "delays")
    async def test_stale_retry_is_refused(self, harness: Harness) -> None:
        """A bug duplicates a message that is delayed and in flight at once."""
        await self._refused(harness, Delayed(0.0))

    @check("leases", "dead_letters")
    async def test_stale_dead_letter_is_refused(self, harness: Harness) -> None:
        """A bug duplicates a message that is dead and in flight at once."""
        await self._refused(harness, None)

    @check("leases")
    async def test_stale_extension_takes_nothing_back(self, harness: Harness) -> None:
        """A bug duplicates a message that a late renewal takes back from its new holder."""
        stale, old, owner, new = await self._overtaken(harness)
        lost = await stale.extend([old])
        assert len(lost) == 1
        assert lost[0] is old
        assert not await owner.extend([new])
        await ack(owner, [new])

    @check("leases")
    async def test_extension_does_not_revive_settled_messages(self, harness: Harness) -> None:
        """A bug duplicates an acked message that a late renewal makes ready again."""
        handle = await harness.subscribe(lease=self.lease)
        await harness.publish()
        held = await take(handle, 1)
        await ack(handle, held)
        assert list(await handle.extend(held)) == held
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.assert_nothing_comes(handle, self.lease * 2)

    @check("leases", "delays")
    async def test_no_stale_outcome_revives_settled_messages(self, harness: Harness) -> None:
        """A bug makes a handled message ready again when its old holder reports a late failure."""
        stale, old, owner, new = await self._overtaken(harness)
        await ack(owner, [new])
        for outcome in (RELEASED, Delayed(0.0), ACKED):
            assert list(await stale.settle([(old, outcome)])) == [old]
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.assert_nothing_comes(owner)

    @check("leases")
    async def test_handle_is_fenced_from_its_own_earlier_deliveries(self, harness: Harness) -> None:
        """A bug loses a message that an earlier delivery settles, if fencing compares names alone."""
        handle = await harness.subscribe(lease=self.lease)
        await harness.publish()
        (old,) = await take(handle, 1)
        await asyncio.sleep(self.lease)
        (new,) = await take(handle, 1, within=self.lease + SOON)
        assert list(await handle.settle([(old, ACKED)])) == [old]
        assert list(await handle.extend([old])) == [old]
        await ack(handle, [new])

    @check("leases")
    async def test_refused_delivery_does_not_stop_its_batch(self, harness: Harness) -> None:
        """A bug duplicates a whole batch, because one delivery in it was refused."""
        stale, old, owner, new = await self._overtaken(harness)
        await harness.publish(3)
        held = await take(stale, 3)
        mixed = [(held[0], ACKED), (old, ACKED), (held[1], ACKED), (held[2], ACKED)]
        assert list(await stale.settle(mixed)) == [old]
        await ack(owner, [new])
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.assert_nothing_comes(owner, self.lease)
