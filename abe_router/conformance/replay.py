"""A replayed dead letter goes to the subscription that failed, once, as if it were new."""

from __future__ import annotations

import asyncio

from abe_router.backend import Dead, Delayed, Delivery, Subscription
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


class ReplayTests(Suite):
    """Replay and purge of dead letters."""

    async def _dead(self, harness: Harness, count: int, pattern: str = KEY) -> tuple[Subscription, list[str]]:
        """Return a handle and the ids of `count` dead letters."""
        handle = await harness.subscribe(pattern)
        await harness.publish(count)
        held = await take(handle, count)
        assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])
        dead_letters = await harness.backend.dead_letters(pattern, GROUP, limit=count)
        assert len(dead_letters) == count
        return handle, [each.id for each in dead_letters]

    @check("dead_letters", "groups")
    async def test_replay_goes_to_the_failing_subscription_alone(self, harness: Harness) -> None:
        """A bug duplicates a replay that publishes again, for groups that had no failure."""
        other, wide = await harness.subscribe(group="audit"), await harness.subscribe("orders.*", "audit")
        handle, ids = await self._dead(harness, 4)
        for bystander in (other, wide):
            await ack(bystander, await take(bystander, 4))
        assert await harness.backend.replay(KEY, GROUP, ids[:3]) == 3
        came = await take(handle, 3)
        assert sorted(numbers(came)) == [0, 1, 2]
        await ack(handle, came)
        for idle in (handle, other, wide):
            await harness.assert_nothing_comes(idle)
        assert await harness.counts() == (0, 0, 0, 1)

    @check("dead_letters", "delays")
    async def test_replay_begins_with_fresh_counts(self, harness: Harness) -> None:
        """A bug makes a replayed message dead again, because its attempts are used up."""
        handle = await harness.subscribe("orders.*")
        sent = await harness.publish()
        for attempt in (1, 2, 3):
            (held,) = await take(handle, 1)
            assert held.message.attempt == attempt
            assert not await handle.settle([(held, Delayed(0.0) if attempt < 3 else Dead(dead_letter(held)))])
        (dead,) = await harness.backend.dead_letters("orders.*", GROUP)
        assert await harness.backend.replay("orders.*", GROUP, [dead.id]) == 1
        (again,) = await take(handle, 1)
        assert_exactly_once(sent, [again])
        assert (again.message.attempt, again.deliveries, again.failed_at) == (1, 1, None)
        assert not await handle.settle([(again, Dead(dead_letter(again)))])
        (dead,) = await harness.backend.dead_letters("orders.*", GROUP)
        assert (dead.attempts, dead.deliveries) == (1, 1)

    @check("dead_letters", "delays")
    async def test_dead_letter_names_the_one_that_was_replayed(self, harness: Harness) -> None:
        """A bug hides that a message goes round between replays and the dead letters."""
        handle, (id,) = await self._dead(harness, 1)
        for replays in (1, 2):
            assert await harness.backend.replay(KEY, GROUP, [id]) == 1
            (again,) = await take(handle, 1)
            assert again.replays == replays
            assert not await handle.settle([(again, Delayed(0.0))])
            (again,) = await take(handle, 1)
            assert again.replays == replays
            assert not await handle.settle([(again, Dead(dead_letter(again)))])
            await harness.reopen()
            handle = await harness.subscribe()
            (dead,) = await harness.backend.dead_letters(KEY, GROUP)
            (bare,) = await harness.backend.dead_letters(KEY, GROUP, bodies=False)
            assert (dead.replays, dead.former) == (bare.replays, bare.former) == (replays, id)
            id = dead.id

    @check("dead_letters")
    async def test_concurrent_replays_move_a_dead_letter_once(self, harness: Harness) -> None:
        """A bug duplicates a dead letter that two operators replay at once."""
        handle, ids = await self._dead(harness, 20)
        backends = [harness.backend, harness.another()]
        moved = await asyncio.gather(*(backends[n % 2].replay(KEY, GROUP, ids) for n in range(8)))
        assert sum(moved) == 20
        came = await take(handle, 20)
        assert sorted(numbers(came)) == list(range(20))
        await ack(handle, came)
        await harness.assert_nothing_comes(handle)
        assert await harness.counts() == (0, 0, 0, 0)

    @check("dead_letters")
    async def test_dead_letter_is_replayed_or_purged_never_both(self, harness: Harness) -> None:
        """A bug duplicates or loses a dead letter that two commands take at the same time."""
        handle, ids = await self._dead(harness, 20)
        one, two = harness.backend, harness.another()
        calls = [
            call(KEY, GROUP, [id]) for id in ids for call in (one.replay, two.purge, two.replay, one.purge)
        ]
        moved = await asyncio.gather(*calls)
        assert sum(moved) == 20
        replayed = sum(moved[0::4]) + sum(moved[2::4])
        assert await harness.counts() == (replayed, 0, 0, 0)
        await ack(handle, await take(handle, replayed))
        await harness.assert_nothing_comes(handle)

    @check("dead_letters")
    async def test_unknown_and_repeated_ids_are_passed_over(self, harness: Harness) -> None:
        """A bug replays twice an id that is given twice, or stops at an id that is gone."""
        handle, ids = await self._dead(harness, 3)
        odd = ["", "0", "-1", "no such id", "\u0663", "1-1-1", "9" * 40, "*"]
        assert await harness.backend.replay(KEY, GROUP, []) == 0
        assert await harness.backend.replay(KEY, GROUP, odd) == 0
        assert await harness.backend.replay(KEY, GROUP, [*odd, ids[0], ids[0]]) == 1
        assert await harness.backend.purge(KEY, GROUP, [*odd, ids[0], ids[1], ids[1]]) == 1
        assert numbers(await take(handle, 1)) == [0]
        await harness.assert_nothing_comes(handle)
        assert await harness.counts() == (0, 1, 0, 1)

    @check("dead_letters", measures_time=True)
    async def test_replay_ends_the_wait_of_a_fetch(self, harness: Harness) -> None:
        """A bug delays a replayed message on a silent key."""
        handle, ids = await self._dead(harness, 2)
        for id, backend, within in ((ids[0], harness.backend, PROMPT), (ids[1], harness.another(), SOON)):
            came = await harness.fetch_during(handle, backend.replay(KEY, GROUP, [id]), within=within)
            assert numbers(came) == [ids.index(id)]

    @check("dead_letters")
    async def test_purged_dead_letters_are_gone(self, harness: Harness) -> None:
        """A bug duplicates what an operator decided never to see again."""
        _, ids = await self._dead(harness, 5)
        assert await harness.backend.purge(KEY, GROUP, ids[:4]) == 4
        assert await harness.backend.purge(KEY, GROUP, ids[:4]) == 0
        assert await harness.backend.replay(KEY, GROUP, ids[:4]) == 0
        await harness.reopen()
        assert [each.id for each in await harness.backend.dead_letters(KEY, GROUP)] == ids[4:]
        await harness.assert_nothing_comes(await harness.subscribe())

    @check("dead_letters", "leases")
    async def test_replayed_message_survives_a_dead_worker(self, harness: Harness) -> None:
        """A bug loses what was replayed and then held by a worker that died."""
        handle, ids = await self._dead(harness, 3)
        assert await harness.backend.replay(KEY, GROUP, ids) == 3
        dead = await harness.subscribe(lease=self.lease)
        await take(dead, 3)
        came: list[Delivery] = await take(handle, 3, within=self.lease + SOON)
        assert {(delivery.deliveries, delivery.message.attempt) for delivery in came} == {(2, 1)}
        await ack(handle, came)
        assert await harness.counts() == (0, 0, 0, 0)

    @check("dead_letters")
    async def test_many_dead_letters_may_be_replayed_at_once(self, harness: Harness) -> None:
        """A bug loses what exceeds the limit of one step of the provider."""
        handle, ids = await self._dead(harness, 1_500)
        assert await harness.backend.replay(KEY, GROUP, ids) == 1_500
        came = await take(handle, 1_500)
        assert sorted(numbers(came)) == list(range(1_500))
        await ack(handle, came)
        assert await harness.counts() == (0, 0, 0, 0)
