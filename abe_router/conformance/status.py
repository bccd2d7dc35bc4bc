"""What the backend reports about itself is true."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import msgspec

from abe_router.backend import ACKED, RELEASED, Dead, Delayed, HealthCheck, Outcome, SubscriptionStatus
from abe_router.conformance.harness import GROUP, KEY, Harness, ack, dead_letter, take
from abe_router.conformance.suite import Suite, check

#: How far the clock of a server on this machine may be from ours, in seconds.
CLOCK = 0.01


class StatusTests(Suite):
    """Counts, the age of what waits, health checks, and the address."""

    @check("leases", "delays", "dead_letters")
    async def test_counts_follow_each_message_through_each_state(self, harness: Harness) -> None:
        """A bug loses what an operator drops because the counts show nothing left to do."""
        assert list(await harness.backend.status()) == []
        handle = await harness.subscribe()
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.publish(10)
        assert await harness.counts() == (10, 0, 0, 0)
        held = await take(handle, 6)
        assert await harness.counts() == (4, 6, 0, 0)
        outcomes: list[Outcome] = [Delayed(3_600.0), Delayed(3_600.0), Dead(dead_letter(held[2])), RELEASED]
        assert not await handle.settle(list(zip(held, outcomes, strict=False)))
        assert await harness.counts() == (5, 2, 2, 1)
        await ack(handle, held[4:])
        assert await harness.counts() == (5, 0, 2, 1)
        (dead,) = await harness.backend.dead_letters(KEY, GROUP)
        await harness.backend.replay(KEY, GROUP, [dead.id])
        assert await harness.counts() == (6, 0, 2, 0)
        await ack(handle, await take(handle, 6))
        assert await harness.counts() == (0, 0, 2, 0)

    @check("groups")
    async def test_status_has_every_subscription_once_in_order(self, harness: Harness) -> None:
        """A bug hides groups that no file names any more, whose backlog grows."""
        names = [("b.c", "g"), ("a.*", "g"), ("a.b", "z"), ("#", "g"), ("a.b", "g"), ("a.b", "Z")]
        for name in names:
            await (await harness.subscribe(*name)).close()
        await harness.subscribe("a.b", "g")
        await harness.publish(3, "a.b")
        await harness.publish(2, "a.c")
        expected = {("a.*", "g"): 5, ("a.b", "z"): 3, ("#", "g"): 5, ("a.b", "g"): 3, ("a.b", "Z"): 3}
        wanted = [SubscriptionStatus(*name, expected.get(name, 0), 0, 0, 0) for name in sorted(names)]
        found = await harness.another().status()
        assert [msgspec.structs.replace(status, oldest_at=None) for status in found] == wanted
        assert [status.name for status in found] == [f"{pattern}/{group}" for pattern, group in sorted(names)]

    @check("leases", "delays")
    async def test_oldest_at_is_when_the_oldest_ready_message_was_accepted(self, harness: Harness) -> None:
        """A bug loses the alarm about a route that does not keep up; or it sounds for what is in work."""
        handle = await harness.subscribe()
        assert (await harness.status()).oldest_at is None
        accepted = []
        for _ in range(3):
            began = time.time()
            await harness.publish()
            accepted.append((began, time.time()))
            await asyncio.sleep(4 * CLOCK)
        await _assert_oldest(harness, accepted[0])
        first = await take(handle, 1)
        await _assert_oldest(harness, accepted[1])
        second = await take(handle, 1)
        await _assert_oldest(harness, accepted[2])
        assert not await handle.settle([(first[0], RELEASED)])
        await _assert_oldest(harness, accepted[0])
        again = await take(handle, 1)
        assert not await handle.settle([(again[0], Delayed(3_600.0))])
        await _assert_oldest(harness, accepted[2])
        third = await take(handle, 1)
        await _assert_oldest(harness, None)
        assert not await handle.settle([(third[0], RELEASED)])
        await _assert_oldest(harness, accepted[2])
        await ack(handle, [*second, *await take(handle, 1)])
        await _assert_oldest(harness, None)

    @check("leases", "delays")
    async def test_next_due_at_is_when_the_first_delayed_message_is_due(self, harness: Harness) -> None:
        """A bug keeps the workers away that are to handle a retry."""
        handle = await harness.subscribe()
        await harness.publish(3)
        assert (await harness.status()).next_due_at is None
        held, began = await take(handle, 3), time.time()
        assert not await handle.settle(
            [(held[0], Delayed(7_200.0)), (held[1], Delayed(3_600.0)), (held[2], ACKED)]
        )
        due_at = (await harness.status()).next_due_at
        assert due_at is not None
        assert began + 3_600.0 - CLOCK <= due_at <= time.time() + 3_600.0 + CLOCK

    @check("groups")
    async def test_oldest_at_covers_all_keys_of_one_subscription(self, harness: Harness) -> None:
        """A bug loses the alarm about a route that waits behind another, quicker one."""
        quick, slow = (
            await harness.subscribe("orders.*", "quick"),
            await harness.subscribe("orders.*", "slow"),
        )
        accepted = {}
        for key in ("orders.b", "orders.a", "orders.c"):
            began = time.time()
            await harness.publish(2, key)
            accepted[key] = (began, time.time())
            await asyncio.sleep(4 * CLOCK)
        await _assert_oldest(harness, accepted["orders.b"], "quick")
        await ack(quick, await take(quick, 6))
        await _assert_oldest(harness, None, "quick")
        await _assert_oldest(harness, accepted["orders.b"], "slow")
        held = await take(slow, 6)
        await ack(slow, [each for each in held if each.message.key == "orders.b"])
        rest = [each for each in held if each.message.key != "orders.b"]
        assert not await slow.settle([(each, RELEASED) for each in rest])
        await _assert_oldest(harness, accepted["orders.a"], "slow")

    @check("leases")
    async def test_message_whose_lease_ended_is_still_counted(self, harness: Harness) -> None:
        """A bug hides what a dead worker held."""
        handle = await harness.subscribe(lease=self.lease / 3)
        await harness.publish(4)
        await take(handle, 4)
        await handle.close()
        await asyncio.sleep(self.lease / 2)
        ready, in_flight, delayed, dead = await harness.counts()
        assert (ready + in_flight, delayed, dead) == (4, 0, 0)

    @check("leases", "groups")
    async def test_health_check_changes_nothing_and_names_orphaned_subscriptions(
        self, harness: Harness
    ) -> None:
        """A bug lets the health check change what it only has to read."""
        handle = await harness.subscribe()
        await harness.publish(3)
        held = await take(handle, 1)
        before = await harness.counts()
        found = await harness.backend.check_health({(KEY, "another")})
        assert {feature.check for feature in harness.backend.features.lacking()} <= {
            result.code for result in found
        }
        assert all(result.message and (result.hint or not result.weakens) for result in found)
        if harness.backend.features.durable:
            assert any(result.code == HealthCheck.ORPHANED for result in found)
        assert await harness.counts() == before
        await ack(handle, held)
        served = await harness.backend.check_health({(KEY, GROUP)})
        assert not any(result.code == HealthCheck.ORPHANED for result in served)

    @check()
    async def test_address_has_no_credentials(self, harness: Harness) -> None:
        """A bug leaks a password, in the first line of every log."""
        parts = urlsplit(harness.backend.url)
        assert parts.scheme
        assert (parts.username, parts.password) == (None, None)


async def _assert_oldest(
    harness: Harness, accepted: tuple[float, float] | None, group: str | None = None
) -> None:
    """Fail unless the oldest ready message was accepted between two times, or there is none."""
    status = await (harness.status() if group is None else harness.status("orders.*", group))
    if accepted is None:
        assert status.oldest_at is None
    else:
        assert status.oldest_at is not None
        assert accepted[0] - CLOCK <= status.oldest_at <= accepted[1] + CLOCK
