"""A message is not accepted again under the same id within its window."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from abe_router.backend import Acked, Backend
from abe_router.conformance.harness import KEY, SOON, Harness, ack, assert_exactly_once, numbers, take
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import Message, new_message

#: A window that does not end during a test, in seconds.
LONG = 600.0


def named(ids: Iterable[str], key: str = KEY) -> list[Message]:
    """Return messages of these ids; their payloads are their numbers."""
    return [new_message(key, b"%d" % n, id=id) for n, id in enumerate(ids)]


async def publish(backend: Backend, messages: Sequence[Message], window: float = LONG) -> list[Message]:
    """Append messages once; return the ones that were passed over."""
    return list(await backend.append_once([(message, window) for message in messages]))


async def publish_until_kept(backend: Backend, messages: Sequence[Message], window: float) -> float:
    """Publish again and again until nothing is passed over; return how many seconds that took."""
    began = time.monotonic()
    while True:
        passed_over = await publish(backend, messages, window)
        took = time.monotonic() - began
        if not passed_over:
            return took
        assert took < window + SOON, f"a window of {window} s has not ended after {took:.2f} s"
        await asyncio.sleep(window / 20)


class DedupeTests(Suite):
    """An id is remembered if and only if its message was kept, from then on, for its window."""

    @check("dedupe")
    async def test_duplicate_is_passed_over(self, harness: Harness) -> None:
        """A bug duplicates what a producer publishes again after an unclear failure."""
        handle = await harness.subscribe()
        first, again = named("abc"), named("cbd")
        assert await publish(harness.backend, first) == []
        assert await publish(harness.backend, again) == again[:2]
        assert_exactly_once([*first, again[2]], await take(handle, 4))
        await harness.assert_nothing_comes(handle)

    @check("dedupe")
    async def test_first_of_an_id_in_one_call_is_kept_in_order(self, harness: Harness) -> None:
        """A bug loses or reorders lines of a file that has some of them twice."""
        handle = await harness.subscribe()
        messages = named("abacb")
        messages.append(messages[0])
        assert await publish(harness.backend, messages) == [messages[2], messages[4], messages[0]]
        assert numbers(await take(handle, 3)) == [0, 1, 3]

    @check("dedupe")
    async def test_message_without_a_window_is_not_compared_or_remembered(self, harness: Harness) -> None:
        """A bug loses messages whose ids are not meant to be unique."""
        handle = await harness.subscribe()
        assert await publish(harness.backend, named("aa"), 0.0) == []
        assert await publish(harness.backend, named("a")) == []
        await harness.backend.append(named("a"))
        assert await publish(harness.backend, named("a"), 0.0) == []
        mixed = list(zip(named("aab"), (LONG, 0.0, LONG), strict=True))
        assert list(await harness.backend.append_once(mixed)) == [mixed[0][0]]
        came = await take(handle, 7)
        assert [delivery.message.id for delivery in came] == [*"aaaaaab"]

    @check("dedupe")
    async def test_same_id_under_another_key_is_no_duplicate(self, harness: Harness) -> None:
        """A bug loses the second of two messages that are about one order."""
        handle = await harness.subscribe("orders.*")
        messages = [*named("a", "orders.created"), *named("a", "orders.paid")]
        assert await publish(harness.backend, messages) == []
        assert await publish(harness.backend, messages) == messages
        assert_exactly_once(messages, await take(handle, 2))

    @check("dedupe")
    async def test_ids_may_be_any_text(self, harness: Harness) -> None:
        """A bug loses or duplicates ids that are cut, folded, or taken for one another or for numbers."""
        handle = await harness.subscribe()
        ids = ["7", "07", "7.0", "1e3", "1000", "a", "A", "a ", "é", "e\u0301", "a\0b", "a\0c", "nan", "-inf"]
        ids += ["x" * 255, "x" * 254 + "y", "'", '"', "a:b", "{a}", "%s", "*", "\n", "☃🙂"]
        messages = named(ids)
        assert await publish(harness.backend, messages) == []
        assert await publish(harness.backend, messages) == messages
        assert [delivery.message.id for delivery in await take(handle, len(ids))] == ids

    @check("dedupe")
    async def test_duplicates_do_not_lengthen_the_window(self, harness: Harness) -> None:
        """A bug refuses for ever what is published again under an old id for good reason."""
        handle, window = await harness.subscribe(), max(0.2, self.lease)
        assert await publish(harness.backend, named("a"), window) == []
        took = await publish_until_kept(harness.backend, named("a"), window)
        assert took > window - 0.1, f"a window of {window} s ended after {took:.2f} s"
        assert len(await publish(harness.backend, named("a"))) == 1
        assert [delivery.message.id for delivery in await take(handle, 2)] == ["a", "a"]

    @check("dedupe")
    async def test_each_id_has_its_own_window(self, harness: Harness) -> None:
        """A bug duplicates what has a long window and is forgotten with what has a short one."""
        window = max(0.2, self.lease)
        assert await publish(harness.backend, named("a"), LONG) == []
        assert await publish(harness.backend, named("b"), window) == []
        await publish_until_kept(harness.backend, named("b"), window)
        assert len(await publish(harness.backend, named("a"), window)) == 1

    @check("dedupe")
    async def test_one_of_several_publishers_at_the_same_time_is_kept(self, harness: Harness) -> None:
        """A bug duplicates what two producers publish when one takes over from the other."""
        handle = await harness.subscribe()
        backends = [harness.backend, *(harness.another() for _ in range(3))]
        ids = [f"id-{n}" for n in range(40)]
        calls = [publish(backend, named(ids[n : n + 4])) for n in range(0, 40, 4) for backend in backends]
        passed_over = await asyncio.gather(*calls)
        assert sum(map(len, passed_over)) == len(ids) * (len(backends) - 1)
        came = await take(handle, len(ids))
        assert sorted(delivery.message.id for delivery in came) == sorted(ids)
        await harness.assert_nothing_comes(handle)

    @check("dedupe", "durable")
    async def test_ids_survive_reopening(self, harness: Harness) -> None:
        """A bug duplicates what a producer publishes again after both were restarted."""
        messages = named("ab")
        assert await publish(harness.backend, messages) == []
        backend = await harness.reopen()
        assert await publish(backend, messages) == messages
        assert_exactly_once(messages, await take(await backend.subscribe(KEY, "late"), 2))

    @check("dedupe")
    async def test_many_ids_are_all_remembered(self, harness: Harness) -> None:
        """A bug duplicates the oldest ids, if the provider remembers a fixed number."""
        ids = [f"{n:05d}" for n in range(12_000)]
        assert await publish(harness.backend, named(ids)) == []
        assert len(await publish(harness.backend, named(reversed(ids)))) == len(ids)

    @check("dedupe", "leases")
    async def test_duplicate_output_is_passed_over(self, harness: Harness) -> None:
        """A bug duplicates what several handlers, or one handler twice, make of one cause."""
        handle, other = await harness.subscribe(), await harness.backend.subscribe("emitted.one", "exact")
        await harness.publish(4)
        held = await take(handle, 4)
        outputs = named("aabc", "emitted.one")
        batch = [(each, Acked((output,), LONG)) for each, output in zip(held, outputs, strict=True)]
        assert await publish(harness.backend, named("c", "emitted.one")) == []
        assert not await handle.settle(batch)
        came = await take(other, 3)
        assert sorted(delivery.message.id for delivery in came) == ["a", "b", "c"]
        assert await harness.counts() == (0, 0, 0, 0)
        assert len(await publish(harness.backend, named("abc", "emitted.one"))) == 3
        await harness.assert_nothing_comes(other)

    @check("dedupe", "leases")
    async def test_outputs_of_one_id_under_several_keys_are_kept(self, harness: Harness) -> None:
        """A bug loses the second of two outputs that are about one order."""
        handle, others = await harness.subscribe(), await harness.backend.subscribe("emitted.*", "others")
        await harness.publish(2)
        held = await take(handle, 2)
        keys = ("emitted.one", "emitted.two", "emitted.three")
        outputs = tuple(output for key in keys for output in named("a", key))
        assert not await handle.settle([(delivery, Acked(outputs, LONG)) for delivery in held])
        assert_exactly_once(outputs, await take(others, 3))
        assert await publish(harness.backend, outputs) == list(outputs)
        await harness.assert_nothing_comes(others)

    @check("dedupe", "leases")
    async def test_lost_lease_leaves_no_id_behind(self, harness: Harness) -> None:
        """A bug loses what another worker emits under the id of an output that was never kept."""
        slow, quick = await harness.subscribe(lease=self.lease), await harness.subscribe()
        other = await harness.backend.subscribe("emitted.one", "exact")
        await harness.publish()
        (late,) = await take(slow, 1)
        (held,) = await take(quick, 1, within=self.lease + SOON)
        (output,) = named("a", "emitted.one")
        assert list(await slow.settle([(late, Acked((output,), LONG))])) == [late]
        assert not await quick.settle([(held, Acked((output,), LONG))])
        assert_exactly_once([output], await take(other, 1))

    @check("dedupe")
    async def test_ids_of_settled_messages_are_remembered(self, harness: Harness) -> None:
        """A bug duplicates ids that are looked for among the kept messages alone."""
        handle = await harness.subscribe()
        messages = named("ab")
        assert await publish(harness.backend, messages) == []
        await ack(handle, await take(handle, 2))
        while await harness.backend.trim({}):
            pass
        assert await publish(harness.backend, messages) == messages
        await harness.assert_nothing_comes(handle)
