"""Patterns subscribe to all keys that match, now and later."""

from __future__ import annotations

from math import inf

from abe_router.backend import RELEASED
from abe_router.conformance.harness import PROMPT, Harness, ack, assert_exactly_once, take
from abe_router.conformance.suite import Suite, check


class PatternTests(Suite):
    """`*` is one word, `#` zero or more (AMQP 0-9-1, section 3.1.3.3)."""

    async def _gets(self, harness: Harness, pattern: str, matching: list[str], others: list[str]) -> None:
        """Check what a pattern gets, of keys that were there before and of keys that came later."""
        sent = {key: await harness.publish(2, key) for key in [*matching, *others]}
        handle = await harness.subscribe(pattern)
        for _ in range(2):
            wanted = [message for key in matching for message in sent[key]]
            came = await take(handle, len(wanted))
            assert_exactly_once(wanted, came)
            await ack(handle, came)
            sent = {key: await harness.publish(2, key) for key in [*matching, *others]}
        await take(handle, len(matching) * 2)
        await harness.assert_nothing_comes(handle)

    @check()
    async def test_a_star_is_one_word(self, harness: Harness) -> None:
        """Lost or mixed up otherwise: keys that a pattern language other than ours would match."""
        await self._gets(
            harness,
            "orders.*.paid",
            ["orders.a.paid", "orders.paid.paid"],
            ["orders.paid", "orders.a.b.paid"],
        )

    @check()
    async def test_a_hash_is_any_number_of_words(self, harness: Harness) -> None:
        """Lost otherwise: the key without the words."""
        await self._gets(
            harness, "orders.#", ["orders", "orders.a", "orders.a.b.c"], ["orders2", "order", "a.orders"]
        )

    @check()
    async def test_a_hash_alone_is_everything(self, harness: Harness) -> None:
        """Lost otherwise: keys that nobody thought of."""
        await self._gets(harness, "#", ["a", "a.b", "x_y", "A"], [])

    @check()
    async def test_a_key_is_itself_alone(self, harness: Harness) -> None:
        """Mixed up otherwise: `_` is any character in SQL, and some stores ignore case."""
        await self._gets(harness, "a_b.c", ["a_b.c"], ["axb.c", "a_b.C", "A_b.c", "a_b.c.d", "a_b", "a_b.cc"])

    @check()
    async def test_a_key_that_appears_later_comes_from_its_beginning(self, harness: Harness) -> None:
        """Lost otherwise: the first messages of a new key, read from its end once it is found."""
        handle = await harness.subscribe("fresh.*", start=inf)
        sent = []
        for n in range(5):
            sent += await harness.publish(3, f"fresh.k{n}", harness.another())
        came = await take(handle, 15, within=3.0)
        assert_exactly_once(sent, came)
        await harness.assert_nothing_comes(handle)

    @check()
    async def test_a_new_key_ends_the_wait_of_a_pattern(self, harness: Harness) -> None:
        """Late otherwise: the provider looks for new keys only between its fetches."""
        handle = await harness.subscribe("fresh.*")
        for key, backend in (("fresh.a", harness.backend), ("fresh.b", harness.another())):
            came = await harness.fetch_during(handle, harness.publish(1, key, backend), within=PROMPT)
            assert [delivery.message.key for delivery in came] == [key]

    @check("groups")
    async def test_a_pattern_and_its_key_each_get_a_copy(self, harness: Harness) -> None:
        """Lost otherwise: what an overlapping subscription, even of the same group, has settled."""
        handles = [await harness.subscribe(pattern) for pattern in ("a.b", "a.*", "#", "a.b.#")]
        sent = await harness.publish(10, "a.b")
        for handle in handles:
            came = await take(handle, 10)
            assert_exactly_once(sent, came)
            await ack(handle, came)
        for handle in handles:
            assert await harness.counts(handle.pattern) == (0, 0, 0, 0)
            await harness.assert_nothing_comes(handle)

    @check("leases", "groups")
    async def test_a_pattern_may_cover_many_keys(self, harness: Harness) -> None:
        """Starved otherwise: the keys behind a busy one."""
        handle, other = await harness.subscribe("many.*"), await harness.subscribe("many.*")
        sent = await harness.publish(500, "many.busy")
        for n in range(60):
            sent += await harness.publish(2, f"many.k{n}")
        held = await take(handle, 620)
        assert_exactly_once(sent, held)
        assert not await handle.settle([(delivery, RELEASED) for delivery in held])
        came = await take(other, 620)
        assert_exactly_once(sent, came)
        await ack(other, came)
        assert await harness.counts("many.*") == (0, 0, 0, 0)
