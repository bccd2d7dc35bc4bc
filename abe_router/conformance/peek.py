"""Looking at messages changes nothing, and misses none."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from abe_router.backend import RELEASED, Backend, Dead, Delayed, Outcome, Peeked
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    SOON,
    Consumers,
    Harness,
    ack,
    assert_exactly_once,
    dead_letter,
    numbers,
    take,
)
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import Message, new_message


class PeekTests(Suite):
    """What `plan`, `tap` and the dashboard show is there, and stays as it was."""

    @check("peek", "leases", "delays", "dead_letters")
    async def test_peek_shows_the_state_and_deliveries_of_each_message(self, harness: Harness) -> None:
        """A bug hides what waits for a retry or is in flight."""
        handle = await harness.subscribe()
        sent = await harness.publish(8)
        held = await take(handle, 6)
        outcomes: list[Outcome] = [Delayed(3_600.0), Dead(dead_letter(held[2])), RELEASED]
        assert not await handle.settle(list(zip(held[1:4], outcomes, strict=True)))
        await ack(handle, held[4:5])
        for backend in (harness.backend, harness.another()):
            seen = await backend.peek(KEY, GROUP)
            assert [(_number(each), each.state, each.deliveries) for each in seen] == [
                (0, "in_flight", 1),
                (1, "delayed", 1),
                (3, "ready", 0),
                (5, "in_flight", 1),
                (6, "ready", 0),
                (7, "ready", 0),
            ]
            assert [each.message.id for each in seen] == [sent[n].id for n in (0, 1, 3, 5, 6, 7)]

    @check("peek", "leases")
    async def test_peek_shows_messages_as_they_were_published(self, harness: Harness) -> None:
        """A bug shows the check of an edit other messages than those that wait."""
        await harness.subscribe()
        message = Message("id 1", KEY, b'{"a": 1}\xff\x00', {"\u00fc": "\U0001f4e6"}, time.time())
        await harness.backend.append([message])
        for group in (GROUP, None):
            (seen,) = await harness.backend.peek(KEY, group)
            found = seen.message
            assert (found.id, found.key, found.body) == (message.id, message.key, message.body)
            assert dict(found.headers) == dict(message.headers)
            assert abs(found.published_at - message.published_at) < 0.001

    @check("peek", "leases", "delays")
    async def test_peek_changes_nothing(self, harness: Harness) -> None:
        """A bug counts, leases or skips deliveries because an operator looks at them."""
        handle = await harness.subscribe()
        sent = await harness.publish(10)
        held = await take(handle, 3)
        assert not await handle.settle([(held[1], Delayed(3_600.0))])
        before, snapshot = list(await harness.backend.status()), self.snapshot()
        for backend in (harness.backend, harness.another()):
            for group in (GROUP, None, "unknown"):
                for limit in (1, 100):
                    cursor = ""
                    while page := await backend.peek(KEY, group, limit=limit, after=cursor):
                        cursor = page[-1].cursor
            await backend.peek("#", None)
            await backend.peek("#", GROUP)
        assert self.snapshot() == snapshot
        assert list(await harness.backend.status()) == before
        assert not await handle.extend([held[0], held[2]])
        await ack(handle, [held[0], held[2]])
        came = await take(handle, 7)
        assert numbers(came) == list(range(3, 10))
        assert {each.deliveries for each in came} == {1}
        assert_exactly_once(sent, [*held, *came])

    @check("peek", "leases")
    async def test_peek_renews_no_lease(self, harness: Harness) -> None:
        """A bug loses what a dead worker held, as long as an operator looks at it."""
        dead = await harness.subscribe(lease=self.lease)
        sent = await harness.publish(3)
        await take(dead, 3)
        other = await harness.subscribe()
        waiting = asyncio.create_task(take(other, 3, within=self.lease + SOON))
        while not waiting.done():
            assert len(await harness.backend.peek(KEY, GROUP)) == 3
            await asyncio.sleep(self.lease / 10)
        came = await waiting
        assert_exactly_once(sent, came)
        assert {each.deliveries for each in came} == {2}
        assert [each.state for each in await harness.backend.peek(KEY, GROUP)] == ["in_flight"] * 3

    @check("peek")
    async def test_peek_without_a_group_shows_what_is_retained(self, harness: Harness) -> None:
        """A bug hides what was handled, and what no route reads yet."""
        sent = await harness.publish(3)
        elsewhere = await harness.publish(2, "orders.paid")
        await harness.publish(2, "other.key")
        seen = await harness.backend.peek(KEY, None)
        assert [(each.message.id, each.state, each.deliveries) for each in seen] == [
            (message.id, "retained", 0) for message in sent
        ]
        both = await harness.another().peek("orders.*", None)
        assert {each.message.id for each in both} == {message.id for message in (*sent, *elsewhere)}
        assert len(both) == 5
        assert list(await harness.backend.status()) == []

    @check("peek", "groups", "leases")
    async def test_peek_shows_settled_messages_only_without_a_group(self, harness: Harness) -> None:
        """A bug hides the difference between what waits and what is kept for other groups."""
        handle = await harness.subscribe()
        await harness.subscribe(group="audit")
        await harness.publish(4)
        await ack(handle, await take(handle, 3))
        assert list(map(_number, await harness.backend.peek(KEY, GROUP))) == [3]
        assert list(map(_number, await harness.backend.peek(KEY, "audit"))) == [0, 1, 2, 3]
        assert list(map(_number, await harness.backend.peek(KEY, None))) == [0, 1, 2, 3]

    @check("peek")
    async def test_peek_of_an_unknown_subscription_is_empty_and_makes_none(self, harness: Harness) -> None:
        """A bug creates a subscription when an operator looks at it, with a wrong start."""
        await harness.publish(3)
        assert list(await harness.backend.peek(KEY, GROUP)) == []
        assert list(await harness.backend.peek("#", None, after="")) != []
        assert list(await harness.backend.peek("never.seen", None)) == []
        assert list(await harness.backend.status()) == []

    @check("peek", "leases", "delays")
    async def test_pages_show_each_message_once(self, harness: Harness) -> None:
        """A bug hides what lies between two pages; or it is shown twice."""
        handle = await harness.subscribe("k.*")
        sent: dict[str, list[str]] = defaultdict(list)
        for number in range(60):
            (message,) = await harness.publish(1, f"k.{number % 4}")
            sent[message.key].append(message.id)
        held = await take(handle, 20)
        assert not await handle.settle([(each, Delayed(3_600.0)) for each in held[:10]])
        for group in (GROUP, None):
            for limit in (1, 7, 60):
                seen = await _all(harness.backend, "k.*", group, limit)
                by_key: dict[str, list[str]] = defaultdict(list)
                for each in seen:
                    by_key[each.message.key].append(each.message.id)
                assert by_key == sent
                assert len({each.cursor for each in seen}) == len(seen)

    @check("peek")
    async def test_what_is_accepted_later_comes_behind_the_cursor(self, harness: Harness) -> None:
        """A bug loses a message that a live tail has passed before it was there."""
        await harness.subscribe("k.*")
        publishers = [harness.backend, harness.another(), harness.another()]
        sent: list[Message] = []

        async def publish(backend: Backend, first: int) -> None:
            for number in range(40):
                batch = [new_message(f"k.{(first + number + n) % 5}", b"0") for n in range(3)]
                await backend.append(batch)
                sent.extend(batch)
                await asyncio.sleep(0)

        async def follow(backend: Backend, group: str | None) -> list[str]:
            seen: list[str] = []
            cursor = ""
            while not (publishing.done() and len(seen) >= len(sent)):
                page = await backend.peek("k.*", group, limit=10, after=cursor)
                seen += [each.message.id for each in page]
                cursor = page[-1].cursor if page else cursor
                await asyncio.sleep(0)
            return seen

        publishing = asyncio.gather(*(publish(backend, n) for n, backend in enumerate(publishers)))
        async with asyncio.timeout(10.0):
            following = [follow(b, g) for b in (harness.backend, harness.another()) for g in (GROUP, None)]
            for seen in await asyncio.gather(*following):
                assert len(seen) == len(set(seen))
                assert set(seen) == {message.id for message in sent}

    @check("peek")
    async def test_peek_from_the_end_shows_only_what_is_accepted_later(self, harness: Harness) -> None:
        """A bug begins a live tail with messages of yesterday, or loses the first new ones."""
        await harness.subscribe("k.*")
        await harness.publish(5, "k.0")
        ends = [(group, await harness.another().peek_end("k.*", group)) for group in (GROUP, None)]
        later = [message.id for key in ("k.1", "k.0") for message in await harness.publish(2, key)]
        for group, end in ends:
            seen = await harness.backend.peek("k.*", group, after=end)
            assert sorted(each.message.id for each in seen) == sorted(later)
            last = await harness.backend.peek_end("k.*", group)
            assert list(await harness.backend.peek("k.*", group, after=last)) == []

    @check("peek")
    async def test_peek_refuses_what_is_not_a_cursor(self, harness: Harness) -> None:
        """A bug begins again with the oldest message, so a client that comes back gets everything twice."""
        await harness.subscribe("k.*")
        await harness.publish(2, "k.0")
        for group in (GROUP, None, "unknown"):
            for after in ("no cursor", "\0", "7 "):
                try:
                    found = await harness.backend.peek("k.*", group, after=after)
                except ValueError:
                    continue
                raise AssertionError(f"{after!r} is no cursor, and {len(found)} messages were returned")

    @check("peek", "leases", "groups")
    async def test_peek_beside_settle_and_trim_neither_fails_nor_stops_them(self, harness: Harness) -> None:
        """A bug stops the work of a route while an operator looks at it."""
        handles = [await harness.subscribe() for _ in range(2)]
        viewer = harness.another()
        sent: list[Message] = []
        peeked = 0

        async def look() -> None:
            nonlocal peeked
            while True:
                for group in (GROUP, None):
                    seen = await _all(viewer, KEY, group, 200)
                    assert len({each.message.id for each in seen}) == len(seen)
                    peeked += 1
                    await asyncio.sleep(0)

        async def trim() -> None:
            while True:
                await harness.backend.trim({})
                await asyncio.sleep(0.001)

        beside = [asyncio.create_task(look()), asyncio.create_task(trim())]
        async with Consumers(handles) as consumers:
            for _ in range(20):
                sent += await harness.publish(50)
                await asyncio.sleep(0)
            await consumers.has_handled(len(sent))
        for task in beside:
            task.cancel()
        assert {type(error) for error in await asyncio.gather(*beside, return_exceptions=True)} == {
            asyncio.CancelledError
        }
        assert peeked
        assert_exactly_once(sent, consumers.handled)
        assert list(await harness.backend.peek(KEY, GROUP)) == []


async def _all(backend: Backend, pattern: str, group: str | None, limit: int) -> list[Peeked]:
    """Page through what there is; fail when a page is longer than its limit."""
    seen: list[Peeked] = []
    cursor = ""
    while page := await backend.peek(pattern, group, limit=limit, after=cursor):
        assert len(page) <= limit
        assert page[-1].cursor != cursor, "the next page does not begin behind the cursor"
        seen += page
        cursor = page[-1].cursor
    return seen


def _number(peeked: Peeked) -> int:
    return int(peeked.message.body)
