"""Each group gets every published message once, however many publish and fetch at the same time."""

from __future__ import annotations

import asyncio
import time

from abe_router.backend import RELEASED, Backend, Delivery
from abe_router.conformance.harness import (
    KEY,
    PROMPT,
    Consumers,
    Harness,
    ack,
    assert_exactly_once,
    numbers,
    take,
)
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import Message, encode, new_message


class DeliveryTests(Suite):
    """The cases of Watermill's suite (`pubsub/tests`), with duplicates counted where it removes them."""

    @check()
    async def test_new_subscription_gets_what_was_published_before_it(self, harness: Harness) -> None:
        """A bug loses what was published before the first start, if a group begins at the end."""
        sent = [
            new_message(KEY, encode({"n": n}), headers={"trace": f"t-{n}"}, id=f"id-{n}") for n in range(100)
        ]
        await harness.backend.append(sent)
        came = await take(await harness.subscribe(), 100)
        assert_exactly_once(sent, came)
        by_id = {delivery.message.id: delivery.message for delivery in came}
        for message in sent:
            got = by_id[message.id]
            assert (got.key, got.body) == (message.key, message.body)
            assert abs(got.published_at - message.published_at) < 1.0, "the backend's clock may tell the time"
            assert dict(got.headers) == message.headers
            assert got.attempt == 1
        assert all(delivery.deliveries == 1 and delivery.failed_at is None for delivery in came)

    @check(measures_time=True)
    async def test_new_message_ends_the_wait_of_a_fetch(self, harness: Harness) -> None:
        """A bug delays a message that comes only when the wait is over."""
        handle = await harness.subscribe()
        for backend in (harness.backend, harness.another()):
            came = await harness.fetch_during(handle, harness.publish(1, KEY, backend), within=PROMPT)
            assert numbers(came) == [0]

    @check(measures_time=True)
    async def test_fetch_that_finds_nothing_waits_its_time(self, harness: Harness) -> None:
        """A bug blocks the event loop with a consumer that fetches without end."""
        handle = await harness.subscribe()
        for wait in (0.0, 0.2):
            began = time.monotonic()
            assert not await handle.fetch(10, wait)
            assert wait - 0.02 <= time.monotonic() - began < wait + 0.5

    @check()
    async def test_fetch_takes_no_more_than_its_limit(self, harness: Harness) -> None:
        """A bug loses what a killed worker had fetched beyond its free slots."""
        greedy, other = await harness.subscribe(), await harness.subscribe()
        sent = await harness.publish(50)
        held = await take(greedy, 3)
        rest = await take(other, 47, within=1.0)
        assert_exactly_once(sent, [*held, *rest])

    @check()
    async def test_messages_in_flight_do_not_stop_the_rest(self, harness: Harness) -> None:
        """A bug lets one worker whose slots are all taken block its group."""
        slow, quick = await harness.subscribe(), await harness.subscribe()
        first = await harness.publish(20)
        held = await take(slow, 20)
        more = await harness.publish(200)
        came = await take(quick, 200)
        await ack(quick, came)
        assert_exactly_once([*first, *more], [*held, *came])
        await ack(slow, held)
        await harness.assert_nothing_comes(quick)

    @check()
    async def test_many_publishers_and_many_handles_deliver_once(self, harness: Harness) -> None:
        """A bug duplicates what two handles compete for, and what a publisher sends again."""
        publishers = [harness.backend, harness.another()]
        async with Consumers([await harness.subscribe() for _ in range(8)]) as consumers:
            sent = await _publish_side_by_side(harness, [KEY] * 40, publishers)
            await consumers.has_handled(len(sent))
            await harness.assert_nothing_comes(await harness.subscribe())
        assert_exactly_once(sent, consumers.handled)

    @check()
    async def test_many_keys_at_once_do_not_mix(self, harness: Harness) -> None:
        """A bug loses messages that come under another key."""
        keys = [f"topic-{n}.news" for n in range(20)]
        handles = [await harness.subscribe(key) for key in keys]
        sent = await _publish_side_by_side(harness, keys * 2, [harness.backend])
        for key, came in zip(keys, await asyncio.gather(*(take(h, 10) for h in handles)), strict=True):
            assert_exactly_once([message for message in sent if message.key == key], came)
        for handle in handles[:3]:
            await harness.assert_nothing_comes(handle)

    @check()
    async def test_handles_that_open_and_close_under_load_lose_nothing(self, harness: Harness) -> None:
        """A bug loses what was on its way to a handle that closed."""
        came: list[Delivery] = []

        async def worker(goal: int) -> None:
            while len(came) < goal:
                handle = await harness.subscribe()
                fetched = list(await handle.fetch(7, 0.1))
                given_back = fetched[5:]
                refused = await handle.settle([(delivery, RELEASED) for delivery in given_back])
                assert not refused
                await ack(handle, fetched[:5])
                came.extend(fetched[:5])
                await handle.close()

        workers = [asyncio.create_task(worker(300)) for _ in range(6)]
        sent = await _publish_side_by_side(harness, [KEY] * 60, [harness.backend])
        await asyncio.gather(*workers)
        assert_exactly_once(sent, came)
        await harness.assert_nothing_comes(await harness.subscribe())

    @check()
    async def test_publisher_that_closes_at_once_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what a publisher still had in a buffer."""
        handle = await harness.subscribe()
        sent: list[Message] = []
        for _ in range(5):
            publisher = harness.another()
            sent += await _publish_side_by_side(harness, [KEY] * 10, [publisher])
            if publisher is not harness.backend:
                await publisher.close()
        assert_exactly_once(sent, await take(handle, len(sent)))

    @check()
    async def test_one_call_appends_many_messages(self, harness: Harness) -> None:
        """A bug loses what exceeds one batch of the provider."""
        handle = await harness.subscribe()
        await harness.backend.append([])
        await harness.assert_nothing_comes(handle)
        sent = await harness.publish(3_000)
        came = await take(handle, 3_000)
        assert_exactly_once(sent, came)
        assert numbers(came) == list(range(3_000))
        await ack(handle, came)
        await harness.assert_nothing_comes(handle)

    @check()
    async def test_publish_encodes_and_appends(self, harness: Harness) -> None:
        """A bug loses the payload that `publish` encodes."""
        message = await harness.backend.publish(KEY, {"n": 10**30}, headers={"a": "b"}, id="own-id")
        (delivery,) = await take(await harness.subscribe(), 1)
        assert delivery.message.payload == {"n": 10**30}
        assert (delivery.message.id, dict(delivery.message.headers)) == ("own-id", {"a": "b"})
        assert_exactly_once([message], [delivery])


async def _publish_side_by_side(harness: Harness, keys: list[str], backends: list[Backend]) -> list[Message]:
    """Publish five messages to each key, all at the same time, through the backends in turn."""
    batches = await asyncio.gather(
        *(harness.publish(5, key, backends[n % len(backends)]) for n, key in enumerate(keys))
    )
    return [message for batch in batches for message in batch]
