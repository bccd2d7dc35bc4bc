"""Work that is done leaves nothing behind, and a call costs the same however much there is."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial

from abe_router.backend import Dead, Subscription
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    Harness,
    ack,
    assert_as_quick,
    dead_letter,
    quickest,
    take,
)
from abe_router.conformance.suite import Suite, check

#: How many puts run at a time.
AT_A_TIME = 500


class GrowthTests(Suite):
    """What grows without bound ends every process some day."""

    #: Messages after which the provider's memory has reached its full size.
    warm = 10_000

    @check()
    async def test_ten_thousand_messages_leave_nothing_in_this_process(self, harness: Harness) -> None:
        """A bug fills memory with tasks, threads and objects that are kept for each message."""
        handle = await harness.subscribe()
        await self._work_off(harness, handle, 500)
        tasks, threads = len(asyncio.all_tasks()), set(threading.enumerate())
        await self._work_off(harness, handle, self.warm)
        before = _objects()
        await self._work_off(harness, handle, 5_000)
        grown = _objects() - before
        assert grown < 500, f"{grown} objects more after 5,000 messages"
        # A backend may start some on the way, as one for each of its servers.
        assert len(asyncio.all_tasks()) <= tasks + 10
        assert set(threading.enumerate()) <= threads
        assert await harness.counts() == (0, 0, 0, 0)

    @check()
    async def test_closed_handles_are_forgotten(self, harness: Harness) -> None:
        """A bug fills memory with a handle for each reload and each reconnect."""
        keep = await harness.subscribe()
        before = _handles()
        for _ in range(50):
            handle = await harness.subscribe()
            await handle.fetch(1, 0.0)
            await handle.close()
        del handle
        assert _handles() <= before + 1
        await keep.close()

    @check()
    async def test_cancelled_fetches_leave_no_tasks(self, harness: Harness) -> None:
        """A bug fills memory with what is left of each cancelled fetch."""
        handle = await harness.subscribe()
        await handle.fetch(1, 0.0)
        tasks = len(asyncio.all_tasks())
        for _ in range(50):
            fetching = asyncio.create_task(handle.fetch(1, 30.0))
            await asyncio.sleep(0.002)
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        sent = await harness.publish()
        assert (await take(handle, 1))[0].message.id == sent[0].id
        assert len(asyncio.all_tasks()) <= tasks + 1

    @check("dead_letters")
    async def test_purged_dead_letters_leave_nothing_to_list(self, harness: Harness) -> None:
        """A bug fills storage with an index of dead letters that are gone."""
        handle = await harness.subscribe()
        for _ in range(5):
            await harness.publish(100)
            held = await take(handle, 100)
            assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])
            dead_letters = await harness.backend.dead_letters(KEY, GROUP)
            assert await harness.backend.purge(KEY, GROUP, [each.id for each in dead_letters]) == 100
        assert await harness.counts() == (0, 0, 0, 0)
        assert list(await harness.backend.dead_letters(KEY, GROUP)) == []

    @check("groups", measures_time=True)
    async def test_status_costs_the_same_with_a_long_backlog(self, harness: Harness) -> None:
        """A bug blocks the dashboard and the metrics, just when a route has fallen behind."""
        quick, _ = await harness.subscribe(group="quick"), await harness.subscribe(group="slow")
        await self._publish(harness, 100)
        few = await quickest(harness.backend.status)
        await self._publish(harness, self.backlog)
        many = await quickest(harness.backend.status)
        assert_as_quick(many, few, "status with messages that wait")
        left = self.backlog + 100
        while left:
            held = await take(quick, min(left, 2_000))
            await ack(quick, held)
            left -= len(held)
        await self._publish(harness, 100)
        assert_as_quick(await quickest(harness.backend.status), few, "status behind settled messages")
        assert (await harness.status(group="slow")).oldest_at is not None
        assert await harness.counts(group="quick") == (100, 0, 0, 0)

    @check("peek", measures_time=True)
    async def test_page_of_a_peek_costs_the_same_with_a_long_backlog(self, harness: Harness) -> None:
        """A bug blocks a live tail, and with it the event loop, when many messages wait or are kept."""
        await harness.subscribe()
        await self._publish(harness, 100)
        calls = {group: partial(harness.backend.peek, KEY, group, limit=10) for group in (GROUP, None)}
        few = {group: await quickest(call) for group, call in calls.items()}
        await self._publish(harness, self.backlog)
        for group, call in calls.items():
            assert_as_quick(await quickest(call), few[group], f"the first page of {group}")
            page, last = await call(limit=5_000), ""
            while page:
                last = page[-10].cursor
                page = await call(limit=5_000, after=page[-1].cursor)
            assert len(await call(after=last)) == 9
            assert_as_quick(
                await quickest(partial(call, after=last)), few[group], f"the last page of {group}"
            )

    @check("key_value", measures_time=True)
    async def test_put_costs_the_same_with_ten_thousand_entries(self, harness: Harness) -> None:
        """A bug blocks the heartbeat of every worker, beside many entries or many expired ones."""
        put = partial(harness.backend.put, "workers", "host:1", b"x" * 200, ttl=60.0)
        few = await quickest(put)
        await self._fill(harness, "workers", None)
        assert_as_quick(await quickest(put), few, "put in a bucket of many entries")
        await self._fill(harness, "expiring", 0.5)
        assert_as_quick(await quickest(put), few, "put beside a bucket of many entries")
        await asyncio.sleep(0.6)
        assert dict(await harness.backend.entries("expiring")) == {}
        assert_as_quick(await quickest(put), few, "put when many entries have expired")
        assert len(await harness.backend.entries("workers")) == self.entries + 1

    @check("key_value")
    async def test_expired_and_replaced_entries_leave_nothing_in_this_process(self, harness: Harness) -> None:
        """A bug fills memory with each heartbeat of each worker that ever was."""
        await self._beat(harness, range(2_000))
        before = _objects()
        await self._beat(harness, range(2_000, 6_000))
        await self._beat(harness, range(2_000), "host:1")
        grown = _objects() - before
        assert grown < 500, f"{grown} objects more after 10,000 puts"
        assert set(await harness.backend.entries("workers")) == {"host:1"}

    async def _beat(self, harness: Harness, numbers: range, name: str = "") -> None:
        """Put one entry again and again, and beside it, unless `name` says so, entries that soon expire."""
        put = harness.backend.put
        for first in range(numbers.start, numbers.stop, AT_A_TIME):
            batch = range(first, first + AT_A_TIME)
            await asyncio.gather(
                *(put("workers", "host:1", b"x", ttl=60.0) for _ in batch),
                *(put("workers", name or f"host:{n + 2}", b"x", ttl=60.0 if name else 0.01) for n in batch),
            )
        await asyncio.sleep(0.05)

    async def _work_off(self, harness: Harness, handle: Subscription, count: int) -> None:
        for _ in range(0, count, 500):
            await harness.publish(500)
            await ack(handle, await take(handle, 500))

    async def _publish(self, harness: Harness, count: int) -> None:
        for done in range(0, count, 2_000):
            await harness.publish(min(count - done, 2_000))

    async def _fill(self, harness: Harness, bucket: str, ttl: float | None) -> None:
        for first in range(0, self.entries, AT_A_TIME):
            names = [f"entry {number}" for number in range(first, first + AT_A_TIME)]
            await asyncio.gather(*(harness.backend.put(bucket, name, b"x", ttl=ttl) for name in names))


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def _handles() -> int:
    gc.collect()
    return sum(isinstance(thing, Subscription) for thing in gc.get_objects())
