"""What the backend says of itself is true."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from abe_router.backend import RELEASED, Dead, Delayed, HealthCheck, Outcome, SubscriptionStatus
from abe_router.conformance.store import GROUP, KEY, Store, ack, letter, take
from abe_router.conformance.suite import Suite, check


class IntrospectionTests(Suite):
    """Counts, announcements, and the name of the place."""

    @check("leases", "delays", "dead_letters")
    async def test_counts_follow_each_message_through_each_state(self, store: Store) -> None:
        """Misled otherwise: whoever decides by the counts that nothing is left to do."""
        assert list(await store.backend.status()) == []
        handle = await store.subscribe()
        assert await store.counts() == (0, 0, 0, 0)
        await store.publish(10)
        assert await store.counts() == (10, 0, 0, 0)
        held = await take(handle, 6)
        assert await store.counts() == (4, 6, 0, 0)
        outcomes: list[Outcome] = [Delayed(3_600.0), Delayed(3_600.0), Dead(letter(held[2])), RELEASED]
        assert not await handle.settle(list(zip(held, outcomes, strict=False)))
        assert await store.counts() == (5, 2, 2, 1)
        await ack(handle, held[4:])
        assert await store.counts() == (5, 0, 2, 1)
        (dead,) = await store.backend.dead_letters(KEY, GROUP)
        await store.backend.replay(KEY, GROUP, [dead.id])
        assert await store.counts() == (6, 0, 2, 0)
        await ack(handle, await take(handle, 6))
        assert await store.counts() == (0, 0, 2, 0)
        assert sum(await store.counts()) == 2

    @check("groups")
    async def test_status_names_every_subscription_once_in_order(self, store: Store) -> None:
        """Overlooked otherwise: groups that no file names any more, whose backlog grows."""
        names = [("b.c", "g"), ("a.*", "g"), ("a.b", "z"), ("#", "g"), ("a.b", "g"), ("a.b", "Z")]
        for name in names:
            await (await store.subscribe(*name)).close()
        await store.subscribe("a.b", "g")
        await store.publish(3, "a.b")
        await store.publish(2, "a.c")
        expected = {("a.*", "g"): 5, ("a.b", "z"): 3, ("#", "g"): 5, ("a.b", "g"): 3, ("a.b", "Z"): 3}
        wanted = [SubscriptionStatus(*name, expected.get(name, 0), 0, 0, 0) for name in sorted(names)]
        assert list(await store.another().status()) == wanted

    @check("leases")
    async def test_a_lease_that_ran_out_is_still_counted(self, store: Store) -> None:
        """Misled otherwise: what nobody holds, nobody has, and no count shows."""
        handle = await store.subscribe(lease=self.lease / 3)
        await store.publish(4)
        await take(handle, 4)
        await handle.close()
        await asyncio.sleep(self.lease / 2)
        ready, in_flight, delayed, dead = await store.counts()
        assert (ready + in_flight, delayed, dead) == (4, 0, 0)

    @check("leases", "groups")
    async def test_an_examination_changes_nothing_and_names_what_nobody_serves(self, store: Store) -> None:
        """Misled otherwise: whoever asks what weakens the promise, and by asking changes it."""
        handle = await store.subscribe()
        await store.publish(3)
        held = await take(handle, 1)
        before = await store.counts()
        found = await store.backend.check_health({(KEY, "another")})
        assert len({finding.code for finding in store.backend.features.lacks()}) <= len(found)
        assert all(finding.message and (finding.hint or not finding.weakens) for finding in found)
        if store.backend.features.durable:
            assert any(finding.code == HealthCheck.ORPHANED for finding in found)
        assert await store.counts() == before
        await ack(handle, held)
        served = await store.backend.check_health({(KEY, GROUP)})
        assert not any(finding.code == HealthCheck.ORPHANED for finding in served)

    @check()
    async def test_announcements_are_kept_replaced_and_withdrawn(self, store: Store) -> None:
        """Misled otherwise: whoever asks which workers run, and with which table."""
        one, two = store.backend, store.another()
        await one.announce("host:1", b"first", 60.0)
        await two.announce("host:2", bytes(range(256)), 60.0)
        await one.announce("host:1", b"second", 60.0)
        assert dict(await two.announcements()) == {"host:1": b"second", "host:2": bytes(range(256))}
        await two.announce("host:1", b"", 60.0)
        await two.announce("never seen", b"", 60.0)
        assert dict(await one.announcements()) == {"host:2": bytes(range(256))}

    @check()
    async def test_announcements_end_unless_repeated(self, store: Store) -> None:
        """Misled otherwise: dead workers that are listed for good."""
        await store.backend.announce("dead", b"x", 0.1)
        await store.backend.announce("alive", b"y", 0.1)
        await asyncio.sleep(0.02)
        await store.backend.announce("alive", b"z", 60.0)
        assert (await store.backend.announcements())["alive"] == b"z"
        await asyncio.sleep(0.2)
        assert dict(await store.backend.announcements()) == {"alive": b"z"}

    @check()
    async def test_the_address_shows_no_credentials(self, store: Store) -> None:
        """Leaked otherwise: a password, by the first line of every log."""
        parts = urlsplit(store.backend.url)
        assert parts.scheme
        assert (parts.username, parts.password) == (None, None)
