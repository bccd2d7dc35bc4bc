"""Every group gets all messages of its keys from its start on, and nothing else."""

from __future__ import annotations

import time
from math import inf

from abe_router.backend import RELEASED
from abe_router.conformance.harness import KEY, Harness, ack, assert_exactly_once, take
from abe_router.conformance.suite import Suite, check


class GroupTests(Suite):
    """Subscriptions of different names do not affect each other."""

    @check("groups")
    async def test_each_group_gets_every_message(self, harness: Harness) -> None:
        """A bug loses what another group has taken or settled."""
        billing, audit = await harness.subscribe(), await harness.subscribe(group="audit")
        sent = await harness.publish(50)
        came = await take(billing, 50)
        await ack(billing, came)
        assert_exactly_once(sent, came)
        assert_exactly_once(sent, await take(audit, 50))
        assert await harness.counts(group="audit") == (0, 50, 0, 0)
        assert await harness.counts() == (0, 0, 0, 0)

    @check("groups")
    async def test_same_group_on_another_key_is_another_subscription(self, harness: Harness) -> None:
        """A bug loses what a group of the same name has settled on another key."""
        names = [("a.b", "g"), ("a.c", "g"), ("a", "b.g"), ("a.b", "g.h"), ("a.b", "g:h-1")]
        handles = [await harness.subscribe(*name) for name in names]
        for handle in handles:
            sent = await harness.publish(2, handle.pattern)
            twins = [other for other in handles if other.pattern == handle.pattern]
            for twin in twins:
                came = await take(twin, 2)
                assert_exactly_once(sent, came)
                await ack(twin, came)
        assert [sum(await harness.counts(*name)) for name in names] == [0] * len(names)

    @check("groups")
    async def test_late_group_gets_what_another_has_not_settled(self, harness: Harness) -> None:
        """A bug loses the backlog, if a group begins at the end or messages are trimmed too early."""
        first = await harness.subscribe()
        sent = await harness.publish(100)
        await ack(first, await take(first, 40))
        late = await harness.subscribe(group="audit")
        came = await take(late, 60)
        came += await late.fetch(100, 0.1)
        unsettled = {message.id for message in sent[40:]}
        assert unsettled <= {delivery.message.id for delivery in came}
        assert len({delivery.message.id for delivery in came}) == len(came)

    @check("groups")
    async def test_unsettled_messages_are_never_trimmed(self, harness: Harness) -> None:
        """A bug loses what the slow group has yet to get, trimmed by length or by the quick group."""
        quick, slow = await harness.subscribe(), await harness.subscribe(group="audit")
        sent = []
        for _ in range(6):
            sent += await harness.publish(2_000)
            await ack(quick, await take(quick, 2_000))
        assert (await harness.counts(group="audit"))[0] == 12_000
        await harness.assert_nothing_comes(quick)
        assert_exactly_once(sent, await take(slow, 12_000, within=20.0))

    @check()
    async def test_messages_without_a_group_are_kept(self, harness: Harness) -> None:
        """A bug loses what is published before the first subscription to its key."""
        sent = []
        for _ in range(6):
            sent += await harness.publish(2_000)
        assert_exactly_once(sent, await take(await harness.subscribe(), 12_000, within=20.0))

    @check()
    async def test_group_may_begin_with_the_next_message(self, harness: Harness) -> None:
        """A bug floods a group that wants no history, or loses the next message."""
        await harness.publish(5)
        handle = await harness.subscribe(start=inf)
        sent = await harness.publish(3)
        assert_exactly_once(sent, await take(handle, 3))
        await harness.assert_nothing_comes(handle)

    @check()
    async def test_group_may_begin_at_a_time(self, harness: Harness) -> None:
        """A bug loses what was published after that time, or delivers what was published before it."""
        await harness.publish(5)
        await harness.pause()
        middle = time.time()
        await harness.pause()
        sent = await harness.publish(4)
        handle = await harness.subscribe(start=middle)
        sent += await harness.publish(2)
        assert_exactly_once(sent, await take(handle, 6))
        await harness.assert_nothing_comes(handle)

    @check()
    async def test_existing_group_goes_on_where_it_was(self, harness: Harness) -> None:
        """A bug loses the backlog, at each restart of a group that began with the next message."""
        first = await harness.subscribe(start=inf)
        sent = await harness.publish(4)
        await first.close()
        for start in (inf, 0.0, time.time() + 60.0):
            again = await harness.subscribe(start=start)
            came = await take(again, 4)
            assert_exactly_once(sent, came)
            assert not await again.settle([(delivery, RELEASED) for delivery in came])
            await again.close()

    @check()
    async def test_messages_of_prefixes_are_separate(self, harness: Harness) -> None:
        """A bug loses what several programs keep on one server under their own prefixes."""
        other = Harness(self.make_backend, self.pause)
        try:
            handle, foreign = await harness.subscribe("#"), await other.subscribe("#")
            sent, elsewhere = await harness.publish(3), await other.publish(2)
            assert_exactly_once(sent, await take(handle, 3))
            assert_exactly_once(elsewhere, await take(foreign, 2))
            assert await other.counts("#") == (0, 2, 0, 0)
            await harness.assert_nothing_comes(handle)
        finally:
            await other.close()

    @check()
    async def test_dropped_subscription_is_forgotten(self, harness: Harness) -> None:
        """A bug loses what other groups hold; or it is kept for a group that is gone."""
        handle, other = await harness.subscribe(), await harness.subscribe(group="audit")
        sent = await harness.publish(5)
        await ack(handle, await take(handle, 1))
        await take(handle, 1)
        assert await harness.backend.drop(KEY, "billing")
        assert not await harness.backend.drop(KEY, "billing")
        assert not await harness.backend.drop("never.seen", "billing")
        assert [status.group for status in await harness.backend.status()] == ["audit"]
        assert_exactly_once(sent, await take(other, 5))
        anew = await harness.subscribe(start=inf)
        sent = await harness.publish(2)
        assert_exactly_once(sent, await take(anew, 2))
