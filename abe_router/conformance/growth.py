"""Work that is done leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading

from abe_router.backend import Dead, Subscription
from abe_router.conformance.store import GROUP, KEY, Store, ack, letter, take
from abe_router.conformance.suite import Suite, check


class GrowthTests(Suite):
    """What grows without bound ends every process some day."""

    #: Messages after which the provider's memory has reached its full size.
    warm = 10_000

    @check()
    async def test_ten_thousand_messages_leave_nothing_in_this_process(self, store: Store) -> None:
        """Exhausted otherwise: tasks, threads and objects that are kept for each message."""
        handle = await store.subscribe()
        await self._work_off(store, handle, 500)
        tasks, threads = len(asyncio.all_tasks()), threading.active_count()
        await self._work_off(store, handle, self.warm)
        before = _objects()
        await self._work_off(store, handle, 5_000)
        grown = _objects() - before
        assert grown < 500, f"{grown} objects more after 5,000 messages"
        assert (len(asyncio.all_tasks()), threading.active_count()) == (tasks, threads)
        assert await store.counts() == (0, 0, 0, 0)

    @check()
    async def test_closed_handles_are_forgotten(self, store: Store) -> None:
        """Exhausted otherwise: a handle for each reload and each reconnect."""
        keep = await store.subscribe()
        before = _handles()
        for _ in range(50):
            handle = await store.subscribe()
            await handle.fetch(1, 0.0)
            await handle.close()
        del handle
        assert _handles() <= before + 1
        await keep.close()

    @check()
    async def test_abandoned_fetches_leave_no_tasks(self, store: Store) -> None:
        """Exhausted otherwise: the rest of every fetch that was cancelled."""
        handle = await store.subscribe()
        await handle.fetch(1, 0.0)
        tasks = len(asyncio.all_tasks())
        for _ in range(50):
            fetching = asyncio.create_task(handle.fetch(1, 30.0))
            await asyncio.sleep(0.002)
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        sent = await store.publish()
        assert (await take(handle, 1))[0].message.id == sent[0].id
        assert len(asyncio.all_tasks()) <= tasks + 1

    @check("dead_letters")
    async def test_purged_letters_leave_nothing_to_list(self, store: Store) -> None:
        """Exhausted otherwise: an index of letters that are gone."""
        handle = await store.subscribe()
        for _ in range(5):
            await store.publish(100)
            held = await take(handle, 100)
            assert not await handle.settle([(delivery, Dead(letter(delivery))) for delivery in held])
            letters = await store.backend.dead_letters(KEY, GROUP)
            assert await store.backend.purge(KEY, GROUP, [each.id for each in letters]) == 100
        assert await store.counts() == (0, 0, 0, 0)
        assert list(await store.backend.dead_letters(KEY, GROUP)) == []

    async def _work_off(self, store: Store, handle: Subscription, count: int) -> None:
        for _ in range(0, count, 500):
            await store.publish(500)
            await ack(handle, await take(handle, 500))


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def _handles() -> int:
    gc.collect()
    return sum(isinstance(thing, Subscription) for thing in gc.get_objects())
