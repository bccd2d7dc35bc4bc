"""The messages of one key come in the order they were appended."""

from __future__ import annotations

from collections import defaultdict

from abe_router.backend import RELEASED, Delivery
from abe_router.conformance.harness import KEY, SOON, Harness, ack, numbers, take
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import new_message


class OrderTests(Suite):
    """Order within a key; between keys there is none."""

    @check()
    async def test_messages_of_a_key_come_in_order(self, harness: Harness) -> None:
        """A bug reorders messages of one call, of several calls, in batches of any size."""
        handle = await harness.subscribe()
        sent = [message.id for _ in range(20) for message in await harness.publish(10)]
        came: list[str] = []
        for limit in (1, 3, 7, 50, 1, 100, 38):
            came += [delivery.message.id for delivery in await take(handle, limit)]
        assert came == sent

    @check()
    async def test_messages_of_each_key_of_a_pattern_come_in_order(self, harness: Harness) -> None:
        """A bug reorders keys that are read side by side."""
        handle = await harness.subscribe("k.*")
        await harness.backend.append([new_message(f"k.{n % 16}", b"%d" % n) for n in range(800)])
        by_key: dict[str, list[Delivery]] = defaultdict(list)
        while sum(map(len, by_key.values())) < 800:
            for delivery in await take(handle, 10):
                by_key[delivery.message.key].append(delivery)
        assert len(by_key) == 16
        for key, deliveries in by_key.items():
            assert numbers(deliveries) == list(range(int(key[2:]), 800, 16))

    @check()
    async def test_messages_of_one_microsecond_stay_in_order(self, harness: Harness) -> None:
        """A bug reorders messages that are sorted by a clock instead of their arrival."""
        handle = await harness.subscribe()
        for n in range(300):
            message = new_message(KEY, b"%d" % n)
            await harness.backend.append([message])
        assert numbers(await take(handle, 300)) == list(range(300))

    @check("leases")
    async def test_returned_messages_come_before_new_ones(self, harness: Harness) -> None:
        """A bug reorders what is handed back, if it goes to the end."""
        handle, other = await harness.subscribe(), await harness.subscribe()
        await harness.publish(12)
        first, second = await take(handle, 4), await take(handle, 4)
        assert not await handle.settle([(delivery, RELEASED) for delivery in first[:2]])
        assert not await handle.settle([(delivery, RELEASED) for delivery in reversed(second)])
        assert not await handle.settle([(delivery, RELEASED) for delivery in reversed(first[2:])])
        assert numbers(await take(other, 12)) == list(range(12))

    @check("leases")
    async def test_message_released_several_times_comes_before_new_ones(self, harness: Harness) -> None:
        """A bug lets new messages go first every second time: a suspect may wait as long as they come."""
        handle = await harness.subscribe()
        await harness.publish(8)
        for _ in range(4):
            held = await take(handle, 1)
            assert numbers(held) == [0]
            assert not await handle.settle([(held[0], RELEASED)])

    @check("leases")
    async def test_messages_of_dead_workers_come_back_in_order(self, harness: Harness) -> None:
        """A bug reorders what several dead workers held."""
        dead = [await harness.subscribe(lease=self.lease) for _ in range(3)]
        await harness.publish(30)
        for n in range(6):
            await take(dead[n % 3], 5)
        alive = await harness.subscribe()
        came = await take(alive, 30, within=self.lease + SOON)
        assert numbers(came) == list(range(30))
        await ack(alive, came)
