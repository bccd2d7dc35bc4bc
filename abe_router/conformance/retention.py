"""Only messages that every group has settled are removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from abe_router.backend import RELEASED, Backend, Dead, Delayed, Outcome
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    Harness,
    ack,
    assert_exactly_once,
    dead_letter,
    numbers,
    take,
)
from abe_router.conformance.suite import Suite, check

#: The group of a second subscription, which shows what is left.
LATE = "late"


class RetentionTests(Suite):
    """`trim` is called as long as it removes something."""

    @check("groups", "leases")
    async def test_messages_that_every_group_has_settled_are_removed(self, harness: Harness) -> None:
        """A bug fills the disk in time."""
        billing, audit = await harness.subscribe(), await harness.subscribe("orders.*", "audit")
        await harness.publish(10)
        await ack(billing, await take(billing, 10))
        assert await _trim(harness.backend) == 0
        await ack(audit, await take(audit, 4))
        assert await _trim(harness.backend) == 4
        await ack(audit, await take(audit, 6))
        assert await _trim(harness.backend) == 6
        assert await harness.counts() == await harness.counts("orders.*", "audit") == (0, 0, 0, 0)
        await _left(harness, 0)

    @check("leases")
    async def test_messages_in_flight_are_kept(self, harness: Harness) -> None:
        """A bug loses what a crashed worker had in flight."""
        handle = await harness.subscribe(lease=self.lease)
        sent = await harness.publish(3)
        taken = await take(handle, 3)
        await ack(handle, taken[:1] + taken[2:])
        await _trim(harness.backend)
        await handle.close()
        assert_exactly_once(sent[1:2], await take(await harness.subscribe(lease=self.lease), 1))

    @check("leases", "delays")
    async def test_delayed_messages_are_kept(self, harness: Harness) -> None:
        """A bug loses every message that fails once."""
        await _assert_kept(harness, Delayed(self.lease))

    @check("leases")
    async def test_released_messages_are_kept(self, harness: Harness) -> None:
        """A bug loses what a stopping worker had fetched."""
        await _assert_kept(harness, RELEASED)

    @check("leases")
    async def test_undelivered_messages_are_kept(self, harness: Harness) -> None:
        """A bug loses the backlog."""
        handle = await harness.subscribe()
        sent = await harness.publish(5)
        await ack(handle, await take(handle, 2))
        await _trim(harness.backend)
        assert_exactly_once(sent[2:], await take(handle, 3))

    @check("leases", "dead_letters")
    async def test_dead_letter_keeps_its_message(self, harness: Harness) -> None:
        """A bug loses what is left to replay."""
        handle = await harness.subscribe()
        sent = await harness.publish(2)
        taken = await take(handle, 2)
        await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in taken[:1]])
        await ack(handle, taken[1:])
        await _trim(harness.backend)
        (kept,) = await harness.backend.dead_letters(KEY, GROUP)
        assert kept.message.body == sent[0].body
        assert await harness.backend.replay(KEY, GROUP, [kept.id]) == 1
        await _trim(harness.backend)
        again = await take(handle, 1)
        assert_exactly_once(sent[:1], again)
        await ack(handle, again)
        await _trim(harness.backend)
        await _left(harness, 0)

    @check()
    async def test_key_without_a_subscription_keeps_everything(self, harness: Harness) -> None:
        """A bug loses what is published before its first consumer starts."""
        other = await harness.subscribe("orders.paid")
        sent = await harness.publish(3)
        await _trim(harness.backend)
        assert_exactly_once(sent, await take(await harness.subscribe(), 3))
        await other.close()

    @check("groups", "leases")
    async def test_key_whose_last_subscription_was_dropped_keeps_everything(self, harness: Harness) -> None:
        """A bug loses what the next consumer is to get."""
        handle = await harness.subscribe()
        await harness.publish(3)
        await ack(handle, await take(handle, 2))
        await handle.close()
        await harness.backend.drop(KEY, GROUP)
        assert await _trim(harness.backend) == 0
        await _left(harness, 3)

    @check("groups", "leases")
    async def test_subscription_without_a_consumer_holds_its_messages(self, harness: Harness) -> None:
        """A bug loses what a group has to catch up with."""
        idle = await harness.subscribe("#", "idle")
        await idle.close()
        handle = await harness.subscribe()
        sent = await harness.publish(3)
        await ack(handle, await take(handle, 3))
        assert await _trim(harness.backend) == 0
        assert_exactly_once(sent, await take(await harness.subscribe("#", "idle"), 3))

    @check("groups", "leases")
    async def test_dropped_subscription_holds_nothing(self, harness: Harness) -> None:
        """A bug fills the disk for a group that is gone for good."""
        await (await harness.subscribe("#", "idle")).close()
        handle = await harness.subscribe()
        await harness.publish(3)
        await ack(handle, await take(handle, 3))
        assert await harness.backend.drop("#", "idle")
        assert await _trim(harness.backend) == 3

    @check("groups", "leases")
    async def test_history_is_kept_for_its_retention(self, harness: Harness) -> None:
        """A bug loses what a group that is added later is to begin with."""
        handle = await harness.subscribe("orders.*")
        await harness.publish(3)
        await harness.publish(2, "orders.paid")
        await ack(handle, await take(handle, 5))
        retain = {"orders.*": 0.05, KEY: 3600, "payments.#": 7200}
        await asyncio.sleep(0.1)
        assert await _trim(harness.backend, retain) == 2
        await _left(harness, 3)

    @check("groups", "leases")
    async def test_retention_of_one_caller_holds_for_all(self, harness: Harness) -> None:
        """A bug loses the history that one file asks for, by the workers of another."""
        handle, other = await harness.subscribe(), harness.another()
        assert await _trim(other, {"orders.#": 3600}) == 0
        await harness.publish(3)
        await ack(handle, await take(handle, 3))
        assert await _trim(harness.backend) == 0
        assert await _trim(harness.backend, {KEY: 0.001}) == 0
        backend = await harness.reopen()
        assert await _trim(backend) == 0
        await _left(harness, 3)

    @check("groups", "leases")
    async def test_each_key_is_trimmed_separately(self, harness: Harness) -> None:
        """A bug fills the disk, when one of many keys has a backlog."""
        paid, created = await harness.subscribe("orders.paid"), await harness.subscribe()
        waiting = await harness.publish(2, "orders.paid")
        await harness.publish(2)
        await ack(created, await take(created, 2))
        assert await _trim(harness.backend) == 2
        assert_exactly_once(waiting, await take(paid, 2))

    @check("leases")
    async def test_trim_beside_publish_and_settle_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what comes between a look and a deletion."""
        handle, other = await harness.subscribe(), harness.another()
        sent, came = [], []
        for _ in range(20):
            sending = asyncio.gather(
                harness.publish(20), other.trim({}), harness.publish(20), harness.backend.trim({})
            )
            first, _, second, _ = await sending
            sent += first + second
            taken, _ = await asyncio.gather(take(handle, 40), other.trim({}))
            await asyncio.gather(ack(handle, taken), harness.backend.trim({}))
            came += taken
        assert_exactly_once(sent, came)
        await _trim(other)
        await _left(harness, 0)

    @check("leases")
    async def test_trim_leaves_nothing_of_twenty_thousand_messages(self, harness: Harness) -> None:
        """A bug fills memory and disk."""
        handle = await harness.subscribe()
        for _ in range(20):
            await harness.publish(1_000)
            await ack(handle, await take(handle, 1_000))
        assert await _trim(harness.backend) <= 20_000
        assert await harness.counts() == (0, 0, 0, 0)
        await _left(harness, 0)


async def _assert_kept(harness: Harness, outcome: Outcome) -> None:
    """Settle one of two messages with the outcome, ack the other one, and trim; the first one comes again."""
    handle = await harness.subscribe()
    sent = await harness.publish(2)
    unfinished, acked = await take(handle, 2)
    await handle.settle([(unfinished, outcome)])
    await ack(handle, [acked])
    await _trim(harness.backend)
    assert_exactly_once(sent[:1], await take(handle, 1))


async def _trim(backend: Backend, retain: Mapping[str, float] | None = None) -> int:
    """Trim until nothing is removed; return how many were."""
    removed = 0
    while more := await backend.trim(retain or {}):
        removed += more
    return removed


async def _left(harness: Harness, count: int) -> None:
    """Fail unless `count` messages of the key are left for a new group, which is dropped again."""
    late = await harness.subscribe(KEY, LATE)
    try:
        if count:
            assert numbers(await take(late, count)) == list(range(count))
        await harness.assert_nothing_comes(late)
    finally:
        await late.close()
        await harness.backend.drop(KEY, LATE)
