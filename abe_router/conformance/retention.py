"""What every group has settled is removed; nothing else, ever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from abe_router.backend import RELEASED, Backend, Dead, Delayed
from abe_router.conformance.store import GROUP, KEY, Store, ack, letter, numbers, once, take
from abe_router.conformance.suite import Suite, check

#: A subscription beside that of the test, to see what is left.
LATE = "late"


class RetentionTests(Suite):
    """`trim` is called as often as it removes something."""

    @check("groups", "leases")
    async def test_what_every_group_has_settled_is_removed(self, store: Store) -> None:
        """Exhausted otherwise: the disk, some day."""
        billing, audit = await store.subscribe(), await store.subscribe("orders.*", "audit")
        await store.publish(10)
        await ack(billing, await take(billing, 10))
        assert await _trim(store.backend) == 0
        await ack(audit, await take(audit, 4))
        assert await _trim(store.backend) == 4
        await ack(audit, await take(audit, 6))
        assert await _trim(store.backend) == 6
        assert await store.counts() == await store.counts("orders.*", "audit") == (0, 0, 0, 0)
        await _left(store, 0)

    @check("leases")
    async def test_what_is_leased_is_kept(self, store: Store) -> None:
        """Lost otherwise: what a worker that crashes had in hand."""
        handle = await store.subscribe(lease=self.lease)
        sent = await store.publish(3)
        taken = await take(handle, 3)
        await ack(handle, taken[:1] + taken[2:])
        await _trim(store.backend)
        await handle.close()
        once(sent[1:2], await take(await store.subscribe(lease=self.lease), 1))

    @check("leases", "delays")
    async def test_what_waits_for_a_retry_is_kept(self, store: Store) -> None:
        """Lost otherwise: every message that fails once."""
        handle = await store.subscribe()
        sent = await store.publish(2)
        failed, fine = await take(handle, 2)
        await handle.settle([(failed, Delayed(self.lease))])
        await ack(handle, [fine])
        await _trim(store.backend)
        once(sent[:1], await take(handle, 1))

    @check("leases")
    async def test_what_was_handed_back_is_kept(self, store: Store) -> None:
        """Lost otherwise: what a worker that stops had fetched."""
        handle = await store.subscribe()
        sent = await store.publish(2)
        back, fine = await take(handle, 2)
        await handle.settle([(back, RELEASED)])
        await ack(handle, [fine])
        await _trim(store.backend)
        once(sent[:1], await take(handle, 1))

    @check("leases")
    async def test_what_was_not_delivered_yet_is_kept(self, store: Store) -> None:
        """Lost otherwise: the backlog."""
        handle = await store.subscribe()
        sent = await store.publish(5)
        await ack(handle, await take(handle, 2))
        await _trim(store.backend)
        once(sent[2:], await take(handle, 3))

    @check("leases", "dead_letters")
    async def test_a_dead_letter_keeps_its_message(self, store: Store) -> None:
        """Lost otherwise: what is left to replay."""
        handle = await store.subscribe()
        sent = await store.publish(2)
        taken = await take(handle, 2)
        await handle.settle([(delivery, Dead(letter(delivery))) for delivery in taken[:1]])
        await ack(handle, taken[1:])
        await _trim(store.backend)
        (kept,) = await store.backend.dead_letters(KEY, GROUP)
        assert kept.message.body == sent[0].body
        assert await store.backend.replay(KEY, GROUP, [kept.id]) == 1
        await _trim(store.backend)
        again = await take(handle, 1)
        once(sent[:1], again)
        await ack(handle, again)
        await _trim(store.backend)
        await _left(store, 0)

    @check()
    async def test_a_key_without_a_subscription_keeps_everything(self, store: Store) -> None:
        """Lost otherwise: what is published before its first consumer is there."""
        other = await store.subscribe("orders.paid")
        sent = await store.publish(3)
        await _trim(store.backend)
        once(sent, await take(await store.subscribe(), 3))
        await other.close()

    @check("groups", "leases")
    async def test_a_key_whose_last_subscription_was_dropped_keeps_everything(self, store: Store) -> None:
        """Lost otherwise: what the next consumer was to get."""
        handle = await store.subscribe()
        await store.publish(3)
        await ack(handle, await take(handle, 2))
        await handle.close()
        await store.backend.drop(KEY, GROUP)
        assert await _trim(store.backend) == 0
        await _left(store, 3)

    @check("groups", "leases")
    async def test_a_subscription_that_nobody_serves_holds_its_messages(self, store: Store) -> None:
        """Lost otherwise: what a group had to catch up with."""
        idle = await store.subscribe("#", "idle")
        await idle.close()
        handle = await store.subscribe()
        sent = await store.publish(3)
        await ack(handle, await take(handle, 3))
        assert await _trim(store.backend) == 0
        once(sent, await take(await store.subscribe("#", "idle"), 3))

    @check("groups", "leases")
    async def test_a_dropped_subscription_holds_nothing(self, store: Store) -> None:
        """Exhausted otherwise: the disk, by a group that is gone for good."""
        await (await store.subscribe("#", "idle")).close()
        handle = await store.subscribe()
        await store.publish(3)
        await ack(handle, await take(handle, 3))
        assert await store.backend.drop("#", "idle")
        assert await _trim(store.backend) == 3

    @check("groups", "leases")
    async def test_history_is_kept_as_long_as_it_was_asked_for(self, store: Store) -> None:
        """Lost otherwise: what a group that is added later was to begin with."""
        handle = await store.subscribe("orders.*")
        await store.publish(3)
        await store.publish(2, "orders.paid")
        await ack(handle, await take(handle, 5))
        retain = {"orders.*": 0.05, KEY: 3600, "payments.#": 7200}
        await asyncio.sleep(0.1)
        assert await _trim(store.backend, retain) == 2
        await _left(store, 3)

    @check("groups", "leases")
    async def test_what_one_caller_wants_kept_no_other_removes(self, store: Store) -> None:
        """Lost otherwise: the history that one file asks for, by the workers of another."""
        handle, other = await store.subscribe(), store.another()
        assert await _trim(other, {"orders.#": 3600}) == 0
        await store.publish(3)
        await ack(handle, await take(handle, 3))
        assert await _trim(store.backend) == 0
        assert await _trim(store.backend, {KEY: 0.001}) == 0
        backend = await store.reopen()
        assert await _trim(backend) == 0
        await _left(store, 3)

    @check("groups", "leases")
    async def test_keys_are_trimmed_each_for_itself(self, store: Store) -> None:
        """Exhausted otherwise: the disk, when one of many keys has a backlog."""
        paid, created = await store.subscribe("orders.paid"), await store.subscribe()
        waiting = await store.publish(2, "orders.paid")
        await store.publish(2)
        await ack(created, await take(created, 2))
        assert await _trim(store.backend) == 2
        once(waiting, await take(paid, 2))

    @check("leases")
    async def test_trimming_while_others_publish_and_settle_loses_nothing(self, store: Store) -> None:
        """Lost otherwise: what comes in between a look and a deletion."""
        handle, other = await store.subscribe(), store.another()
        sent, came = [], []
        for _ in range(20):
            sending = asyncio.gather(
                store.publish(20), other.trim({}), store.publish(20), store.backend.trim({})
            )
            first, _, second, _ = await sending
            sent += first + second
            taken, _ = await asyncio.gather(take(handle, 40), other.trim({}))
            await asyncio.gather(ack(handle, taken), store.backend.trim({}))
            came += taken
        once(sent, came)
        await _trim(other)
        await _left(store, 0)

    @check("leases")
    async def test_of_twenty_thousand_messages_nothing_is_left(self, store: Store) -> None:
        """Exhausted otherwise: memory and disk."""
        handle = await store.subscribe()
        for _ in range(20):
            await store.publish(1_000)
            await ack(handle, await take(handle, 1_000))
        assert await _trim(store.backend) <= 20_000
        assert await store.counts() == (0, 0, 0, 0)
        await _left(store, 0)


async def _trim(backend: Backend, retain: Mapping[str, float] | None = None) -> int:
    """Trim until there is nothing to remove; return how many were."""
    removed = 0
    while more := await backend.trim(retain or {}):
        removed += more
    return removed


async def _left(store: Store, count: int) -> None:
    """Fail unless so many messages of the key are left, as a new group sees it that is gone again then."""
    late = await store.subscribe(KEY, LATE)
    try:
        if count:
            assert numbers(await take(late, count)) == list(range(count))
        await store.nothing(late)
    finally:
        await late.close()
        await store.backend.drop(KEY, LATE)
