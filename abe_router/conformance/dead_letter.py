"""A dead letter keeps all that is known until an operator decides."""

from __future__ import annotations

import time

import msgspec

from abe_router.backend import Dead, DeadLetter, Reason
from abe_router.conformance.harness import GROUP, KEY, Harness, ack, assert_exactly_once, dead_letter, take
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import Message

#: A dead letter in which every field has a value that can be lost or changed.
FULL = {
    "route": "orders.created/billing",
    "reason": Reason(
        kind="invalid",
        error="PayloadInvalid",
        message="expected \u00fc\x00\r\n at \U0001f4e6",
        traceback='Traceback:\n  File "shop.py", line 3\n' * 40,
        pointer="/items/0/~1price",
        keyword="minimum",
        type="shop.errors.\u00dcberlauf",
        frame="shop.billing:charge",
    ),
    "attempts": 7,
    "deliveries": 11,
    "first_failed_at": 1_700_000_000.123456,
    "last_failed_at": 1_700_000_777.000001,
    "revision": "9f2c",
}


class DeadLetterTests(Suite):
    """The end of a message that could not be handled."""

    @check("dead_letters")
    async def test_every_field_of_a_dead_letter_is_kept(self, harness: Harness) -> None:
        """A bug loses the reason of a failure, which is all that an operator has."""
        handle = await harness.subscribe()
        await harness.backend.append(
            [Message("id 1", KEY, b"\xff\x00", {"\u00fc": "\U0001f4e6"}, time.time())]
        )
        (delivery,) = await take(handle, 1)
        written = dead_letter(delivery, FULL)
        assert not await handle.settle([(delivery, Dead(written))])
        for _ in range(2 if harness.features.durable else 1):
            (read,) = await harness.backend.dead_letters(KEY, GROUP)
            assert read.id
            for name in DeadLetter.__struct_fields__:
                if name not in ("id", "message"):
                    assert getattr(read, name) == getattr(written, name), name
            got, sent = read.message, delivery.message
            assert (got.id, got.key, got.body) == (sent.id, sent.key, sent.body)
            assert abs(got.published_at - sent.published_at) < 0.002
            assert dict(got.headers) == {"\u00fc": "\U0001f4e6"}
            (bare,) = await harness.backend.dead_letters(KEY, GROUP, bodies=False)
            assert msgspec.structs.replace(bare, message=got) == read
            assert (bare.message.id, bare.message.key) == (sent.id, sent.key)
            await harness.reopen()

    @check("dead_letters")
    async def test_reason_with_lone_surrogates_is_kept(self, harness: Harness) -> None:
        """A bug blocks a message whose failure names a file with a name that is not UTF-8."""
        handle = await harness.subscribe()
        await harness.publish(1)
        (delivery,) = await take(handle, 1)
        reason = Reason("failed", "OSError", "no file \udcff", "in \ud800")
        assert not await handle.settle([(delivery, Dead(dead_letter(delivery, {**FULL, "reason": reason})))])
        (read,) = await harness.backend.dead_letters(KEY, GROUP)
        assert "no file" in read.reason.message

    @check("dead_letters", "leases")
    async def test_dead_letter_is_not_delivered(self, harness: Harness) -> None:
        """A bug duplicates what is written to the dead letters and not removed from the queue."""
        handle = await harness.subscribe(lease=self.lease)
        await harness.publish(3)
        held = await take(handle, 3)
        assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])
        assert list(await handle.settle([(held[0], Dead(dead_letter(held[0])))])) == [held[0]]
        assert list(await handle.extend(held)) == held
        await harness.assert_nothing_comes(handle, self.lease * 1.5)
        assert await harness.counts() == (0, 0, 0, 3)
        assert len(await harness.backend.dead_letters(KEY, GROUP)) == 3

    @check("dead_letters")
    async def test_dead_letters_are_listed_oldest_first_in_pages(self, harness: Harness) -> None:
        """A bug hides dead letters between two pages when the one between them is gone."""
        handle = await harness.subscribe()
        await harness.publish(130)
        order = []
        for _ in range(13):
            held = await take(handle, 10)
            assert not await handle.settle([(d, Dead(dead_letter(d))) for d in reversed(held)])
            order += [delivery.message.id for delivery in reversed(held)]
        backend = harness.backend
        assert len(await backend.dead_letters(KEY, GROUP)) == 100
        everything = await backend.dead_letters(KEY, GROUP, limit=1_000)
        assert [each.message.id for each in everything] == order
        assert len({each.id for each in everything}) == 130
        paged: list[DeadLetter] = []
        while page := await backend.dead_letters(KEY, GROUP, limit=17, after=paged[-1].id if paged else ""):
            after = paged[-1].id if paged else ""
            bare = await backend.dead_letters(KEY, GROUP, limit=17, after=after, bodies=False)
            assert [each.id for each in bare] == [each.id for each in page]
            paged += page
            await backend.purge(KEY, GROUP, [page[-1].id])
        assert [each.id for each in paged] == [each.id for each in everything]
        assert await harness.counts() == (0, 0, 0, 130 - 8)

    @check("dead_letters", "groups")
    async def test_each_subscription_has_its_own_dead_letters(self, harness: Harness) -> None:
        """A bug hides what failed in one group and not in another."""
        handle, other = await harness.subscribe(), await harness.subscribe("orders.*")
        sent = await harness.publish(4)
        held = await take(handle, 4)
        assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])
        assert_exactly_once(sent, await take(other, 4))
        assert len(await harness.backend.dead_letters(KEY, GROUP)) == 4
        for name in (("orders.*", GROUP), (KEY, "audit"), ("never.seen", GROUP)):
            assert list(await harness.backend.dead_letters(*name)) == []
            assert await harness.backend.replay(*name, ["1"]) == 0
            assert await harness.backend.purge(*name, ["1"]) == 0

    @check("dead_letters")
    async def test_id_of_a_dead_letter_is_never_used_again(self, harness: Harness) -> None:
        """A bug loses a dead letter that is purged in place of the one that an operator saw."""
        handle = await harness.subscribe()
        seen: set[str] = set()
        for turn in range(6):
            if turn % 2 == 0:
                await harness.publish()
            held = await take(handle, 1)
            assert not await handle.settle([(held[0], Dead(dead_letter(held[0])))])
            (dead,) = await harness.backend.dead_letters(KEY, GROUP)
            assert dead.id not in seen
            seen.add(dead.id)
            finish = harness.backend.replay if turn % 2 == 0 else harness.backend.purge
            assert await finish(KEY, GROUP, [dead.id]) == 1
        await harness.assert_nothing_comes(handle)

    @check("dead_letters")
    async def test_dead_letters_do_not_stop_what_is_behind_them(self, harness: Harness) -> None:
        """A bug blocks what is behind a message that failed."""
        handle = await harness.subscribe()
        await harness.publish(20)
        held = await take(handle, 20)
        assert not await handle.settle([(d, Dead(dead_letter(d))) for d in held[::2]])
        await ack(handle, held[1::2])
        sent = await harness.publish(3)
        assert_exactly_once(sent, await take(handle, 3))
