"""A failed delivery comes again after its delay: to its own group, counted, and blocking no other."""

from __future__ import annotations

import time

from abe_router.backend import RELEASED, Delayed
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    PROMPT,
    SOON,
    Consumers,
    Harness,
    ack,
    assert_exactly_once,
    numbers,
    take,
)
from abe_router.conformance.suite import Suite, check

#: How late a retry may come, in seconds, nine times out of ten.
LATE = 0.25


class DelayTests(Suite):
    """Retries are kept by the backend, not by the worker that asked for them."""

    @check("delays", measures_time=True)
    async def test_retry_is_never_early_and_hardly_late(self, harness: Harness) -> None:
        """A bug makes a backoff too short, or too long because it waits for traffic."""
        handle = await harness.subscribe()
        await harness.publish(20)
        delays = [0.05 + 0.01 * n for n in range(20)]
        held = await take(handle, 20)
        before = time.time()
        assert not await handle.settle([(d, Delayed(delays[n])) for n, d in enumerate(held)])
        after = time.time()
        late = []
        for _ in range(20):
            (delivery,) = await take(handle, 1, within=3.0)
            delay = delays[int(delivery.message.body)]
            assert time.time() >= before + delay - 0.002, "a retry came early"
            late.append(time.time() - after - delay)
        assert sorted(late)[17] <= LATE, f"retries came late by {sorted(late)} s"

    @check("delays")
    async def test_attempts_and_the_first_failure_are_kept(self, harness: Harness) -> None:
        """A bug repeats attempts without end, if the worker counts them or each retry resets them."""
        handle = await harness.subscribe()
        await harness.publish()
        failures, times = [], []
        for attempt in (1, 2, 3, 4):
            (delivery,) = await take(handle, 1, within=SOON)
            assert (delivery.message.attempt, delivery.deliveries) == (attempt, attempt)
            failures.append(delivery.failed_at)
            times.append(time.time())
            assert not await handle.settle([(delivery, Delayed(0.02))])
            handle = await harness.subscribe()  # the count is the message's, not the handle's
        assert failures[0] is None
        assert failures[1] is not None
        assert failures[1:] == [failures[1]] * 3
        assert times[0] - 1.0 <= failures[1] <= times[1] + 1.0

    @check("delays", "leases")
    async def test_crash_keeps_the_attempt(self, harness: Harness) -> None:
        """A bug repeats attempts without end, if a crash resets them."""
        handle = await harness.subscribe(lease=self.lease)
        await harness.publish()
        (first,) = await take(handle, 1)
        assert not await handle.settle([(first, Delayed(0.0))])
        (second,) = await take(handle, 1)
        await handle.close()
        other = await harness.subscribe(lease=self.lease * 2)
        (third,) = await take(other, 1, within=self.lease + SOON)
        assert (third.message.attempt, third.deliveries) == (2, 3)
        assert third.failed_at == second.failed_at is not None
        assert not await other.settle([(third, RELEASED)])
        (fourth,) = await take(other, 1)
        assert (fourth.message.attempt, fourth.deliveries, fourth.failed_at) == (2, 3, second.failed_at)

    @check("delays")
    async def test_retry_does_not_stop_what_is_behind_it(self, harness: Harness) -> None:
        """A bug lets one bad message block its key."""
        handle = await harness.subscribe()
        await harness.publish(10)
        held = await take(handle, 2)
        assert not await handle.settle([(delivery, Delayed(3_600.0)) for delivery in held])
        assert numbers(await take(handle, 8, within=1.0)) == list(range(2, 10))
        await harness.assert_nothing_comes(handle)
        assert await harness.counts() == (0, 8, 2, 0)

    @check("delays", "groups")
    async def test_other_groups_see_nothing_of_a_retry(self, harness: Harness) -> None:
        """A bug duplicates retries that are published again, for every group."""
        handle, other = await harness.subscribe(), await harness.subscribe(group="audit")
        wide = await harness.subscribe("#", "audit")
        sent = await harness.publish(5)
        for attempt in (1, 2):
            held = await take(handle, 5)
            assert {delivery.message.attempt for delivery in held} == {attempt}
            assert not await handle.settle([(delivery, Delayed(0.0)) for delivery in held])
        for bystander in (other, wide):
            came = await take(bystander, 5)
            assert_exactly_once(sent, came)
            assert {(delivery.message.attempt, delivery.deliveries) for delivery in came} == {(1, 1)}
            await harness.assert_nothing_comes(bystander)

    @check("delays", "leases")
    async def test_retries_survive_reopening(self, harness: Harness) -> None:
        """A bug loses retries that wait in the memory of a worker."""
        handle = await harness.subscribe()
        sent = await harness.publish(6)
        held = await take(handle, 6)
        assert not await handle.settle([(delivery, Delayed(0.1)) for delivery in held])
        await harness.reopen()
        came = await take(await harness.subscribe(), 6, within=SOON)
        assert_exactly_once(sent, came)
        assert {(delivery.message.attempt, delivery.deliveries) for delivery in came} == {(2, 2)}

    @check("delays")
    async def test_many_retries_come_once_to_many_handles(self, harness: Harness) -> None:
        """A bug duplicates or loses retries that fall due while several handles look for them."""
        first = await harness.subscribe()
        sent = await harness.publish(400)
        held = await take(first, 400)
        assert not await first.settle([(d, Delayed(0.02 * (n % 5))) for n, d in enumerate(held)])
        handles = [await harness.subscribe() for _ in range(4)]
        async with Consumers([first, *handles], limit=7) as consumers:
            await consumers.has_handled(400)
        assert_exactly_once(sent, consumers.handled)
        await harness.assert_nothing_comes(first)
        assert await harness.counts() == (0, 0, 0, 0)

    @check("delays", measures_time=True)
    async def test_retry_comes_to_a_handle_that_already_waits(self, harness: Harness) -> None:
        """A bug delays a retry that another handle asked for after this one began to wait."""
        handle = await harness.subscribe()
        for backend, within in ((harness.backend, PROMPT), (harness.another(), SOON)):
            await harness.publish()
            held = await take(handle, 1)
            waiting = await backend.subscribe(KEY, GROUP)
            retry = handle.settle([(held[0], Delayed(0.1))])
            came = await harness.fetch_during(waiting, retry, within=0.1 + within)
            assert [delivery.message.id for delivery in came] == [held[0].message.id]
            await ack(waiting, came)
            await waiting.close()
