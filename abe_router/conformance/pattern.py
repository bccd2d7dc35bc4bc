"""Patterns subscribe to all keys that match, now and later."""

from __future__ import annotations

from math import inf

from abe_router.backend import RELEASED
from abe_router.conformance.harness import PROMPT, Harness, ack, assert_exactly_once, take
from abe_router.conformance.suite import Suite, check


class PatternTests(Suite):
    """`*` is one word, `#` zero or more (AMQP 0-9-1, section 3.1.3.3)."""

    async def _gets(self, harness: Harness, pattern: str, matching: list[str], others: list[str]) -> None:
        """Fail unless a pattern gets just these keys, of those before it and of those after it."""
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
    async def test_star_matches_one_word(self, harness: Harness) -> None:
        """A bug loses keys that another pattern language would match differently."""
        await self._gets(
            harness,
            "orders.*.paid",
            ["orders.a.paid", "orders.paid.paid"],
            ["orders.paid", "orders.a.b.paid"],
        )

    @check()
    async def test_hash_matches_any_number_of_words(self, harness: Harness) -> None:
        """A bug loses the key without those words."""
        await self._gets(
            harness, "orders.#", ["orders", "orders.a", "orders.a.b.c"], ["orders2", "order", "a.orders"]
        )

    @check()
    async def test_hash_alone_matches_every_key(self, harness: Harness) -> None:
        """A bug loses keys that no route was made for."""
        await self._gets(harness, "#", ["a", "a.b", "x_y", "A"], [])

    @check()
    async def test_key_matches_itself_alone(self, harness: Harness) -> None:
        """A bug delivers messages of other keys, because `_` is any character in SQL or case is ignored."""
        await self._gets(harness, "a_b.c", ["a_b.c"], ["axb.c", "a_b.C", "A_b.c", "a_b.c.d", "a_b", "a_b.cc"])

    @check()
    async def test_new_key_is_read_from_its_beginning(self, harness: Harness) -> None:
        """A bug loses the first messages of a new key, if it is read from its end once it is found."""
        handle = await harness.subscribe("fresh.*", start=inf)
        sent = []
        for n in range(5):
            sent += await harness.publish(3, f"fresh.k{n}", harness.another())
        came = await take(handle, 15, within=3.0)
        assert_exactly_once(sent, came)
        await harness.assert_nothing_comes(handle)

    @check(measures_time=True)
    async def test_new_key_ends_the_wait_of_a_pattern(self, harness: Harness) -> None:
        """A bug delays the first message of a key, if new keys are looked for between fetches alone."""
        handle = await harness.subscribe("fresh.*")
        for key, backend in (("fresh.a", harness.backend), ("fresh.b", harness.another())):
            came = await harness.fetch_during(handle, harness.publish(1, key, backend), within=PROMPT)
            assert [delivery.message.key for delivery in came] == [key]

    @check("groups")
    async def test_pattern_and_its_key_each_get_a_copy(self, harness: Harness) -> None:
        """A bug loses what an overlapping subscription has settled, even one of the same group."""
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
    async def test_pattern_may_match_many_keys(self, harness: Harness) -> None:
        """A bug blocks the keys behind a busy one."""
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
