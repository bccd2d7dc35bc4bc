"""Outcomes are carried out whole, once, in any order."""

from __future__ import annotations

import random

from abe_router.backend import ACKED, RELEASED, Dead, Delayed, Delivery, Outcome
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    PROMPT,
    SOON,
    Harness,
    ack,
    assert_exactly_once,
    dead_letter,
    numbers,
    take,
)
from abe_router.conformance.suite import Suite, check


class SettleTests(Suite):
    """The outcome of a delivery counts, and counts once."""

    @check()
    async def test_acked_message_never_comes_again(self, harness: Harness) -> None:
        """A bug duplicates handled messages after the lease, or after a restart."""
        handle = await harness.subscribe(lease=self.lease)
        await harness.publish(20)
        await ack(handle, await take(handle, 20))
        await harness.assert_nothing_comes(handle, self.lease * 1.5)
        await harness.reopen()
        await harness.assert_nothing_comes(await harness.subscribe())

    @check()
    async def test_settling_twice_settles_once(self, harness: Harness) -> None:
        """A bug duplicates an outcome that is sent again after an unclear error."""
        handle = await harness.subscribe()
        await harness.publish(2)
        first, second = await take(handle, 2)
        assert list(await handle.settle([(first, ACKED), (first, ACKED)])) == [first]
        assert list(await handle.settle([(first, RELEASED), (second, ACKED)])) == [first]
        assert list(await handle.settle([])) == []
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.assert_nothing_comes(handle)

    @check("leases")
    async def test_messages_may_be_settled_out_of_order(self, harness: Harness) -> None:
        """A bug loses what is in flight, if a position moves past it."""
        handle, other = await harness.subscribe(lease=self.lease), await harness.subscribe()
        sent = await harness.publish(10)
        held = await take(handle, 10)
        await ack(handle, [held[9], *held[1:9:2]])
        left = [message for n, message in enumerate(sent) if n % 2 == 0]
        came = await take(other, 5, within=self.lease + SOON)
        assert_exactly_once(left, came)
        await ack(other, came)
        assert await harness.counts() == (0, 0, 0, 0)

    @check("leases")
    async def test_released_messages_come_back_at_once_in_order_and_uncounted(self, harness: Harness) -> None:
        """A bug reorders what a stopping worker hands back untried, or counts it as an attempt."""
        leaving, staying = await harness.subscribe(), await harness.subscribe()
        await harness.publish(30)
        early, late = await take(leaving, 10), await take(leaving, 10)
        random.Random(7).shuffle(late)  # noqa: S311
        assert not await leaving.settle([(delivery, RELEASED) for delivery in late])
        assert not await leaving.settle([(delivery, RELEASED) for delivery in early])
        came = await take(staying, 30, within=1.0)
        assert numbers(came) == list(range(30))
        assert {(d.deliveries, d.message.attempt, d.failed_at) for d in came} == {(1, 1, None)}

    @check("leases", measures_time=True)
    async def test_release_ends_the_wait_of_another_handle(self, harness: Harness) -> None:
        """A bug delays what a stopping worker hands back while others wait."""
        leaving = await harness.subscribe()
        for backend, within in ((harness.backend, PROMPT), (harness.another(), SOON)):
            await harness.publish()
            held = await take(leaving, 1)
            staying = await backend.subscribe(KEY, GROUP)
            came = await harness.fetch_during(staying, leaving.settle([(held[0], RELEASED)]), within=within)
            assert [delivery.message.id for delivery in came] == [held[0].message.id]
            await ack(staying, came)
            await staying.close()

    @check("leases", "delays", "dead_letters")
    async def test_one_batch_may_have_every_outcome(self, harness: Harness) -> None:
        """A bug loses outcomes that are carried out by kind, or in part."""
        handle = await harness.subscribe()
        sent = await harness.publish(40)
        held = await take(handle, 40)
        batch: list[tuple[Delivery, Outcome]] = []
        for n, delivery in enumerate(held):
            outcomes = (ACKED, Delayed(0.0), Delayed(3_600.0), RELEASED, Dead(dead_letter(delivery)))
            batch.append((delivery, outcomes[n % 5]))
        assert not await handle.settle(batch)
        back = await take(handle, 16)
        assert_exactly_once([m for n, m in enumerate(sent) if n % 5 in (1, 3)], back)
        assert {(int(d.message.body) % 5, d.message.attempt) for d in back} == {(1, 2), (3, 1)}
        assert await harness.counts() == (0, 16, 8, 8)

    @check("leases", "delays", "dead_letters")
    async def test_batch_may_be_large(self, harness: Harness) -> None:
        """A bug loses what exceeds the limit of one step of the provider."""
        handle = await harness.subscribe()
        await harness.publish(1_500)
        held = await take(handle, 1_500)
        assert not await handle.extend(held)
        batch = [(d, (Delayed(3_600.0), Dead(dead_letter(d)), ACKED)[n // 500]) for n, d in enumerate(held)]
        assert not await handle.settle(batch)
        assert await harness.counts() == (0, 0, 500, 500)
