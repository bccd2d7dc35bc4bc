"""Dead letters of a pattern, which lie in one stream for each key."""

from __future__ import annotations

import pytest

from abe_router.backend import Backend
from abe_router.backends.redis import dead_letters
from abe_router.backends.redis.connection import Connection
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import as_dead

GROUP = "billing"
#: One key has most of the dead letters.
KEYS = ["orders.a"] * 9 + ["orders.b", "orders.c"]


@pytest.fixture
async def dead(redis_backend: Backend) -> list[str]:
    """Return the ids of messages that died in this order, under three keys."""
    subscription = await redis_backend.subscribe("orders.*", GROUP)
    died: list[str] = []
    for number in range(60):
        await redis_backend.append([new_message(KEYS[number % len(KEYS)], b"%d" % number)])
        (delivery,) = await subscription.fetch(1, HANG)
        assert not await subscription.settle([(delivery, as_dead(delivery))])
        died.append(delivery.message.id)
    return died


@pytest.mark.parametrize("bodies", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 1_000])
async def test_pages_over_uneven_keys_are_complete_and_in_order(
    redis_backend: Backend, dead: list[str], limit: int, bodies: bool
) -> None:
    found, after = [], ""
    while page := await redis_backend.dead_letters(
        "orders.*", GROUP, limit=limit, after=after, bodies=bodies
    ):
        found += [each.message.id for each in page]
        after = page[-1].id
        assert len(page) == limit or len(found) == len(dead)
    assert sorted(found) == sorted(dead)
    assert len(set(found)) == len(dead)


async def test_one_key_with_most_of_them_takes_few_reads(
    redis_backend: Backend, dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, run = [], Connection.run

    def counted(self, script, *args):
        calls.append(script)
        return run(self, script, *args)

    monkeypatch.setattr(Connection, "run", counted)
    found = await redis_backend.dead_letters("orders.*", GROUP, limit=60, bodies=False)
    assert len(found) == len(dead)
    assert len(calls) <= 3 * 3  # the three keys, with 30, 60 and 60 at once


async def test_a_call_without_bodies_stops_after_enough_bytes(
    redis_backend: Backend, dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_READ_BYTES", 2_000)
    found: list[str] = []
    after, calls = "", 0
    while page := await redis_backend.dead_letters("orders.*", GROUP, after=after, bodies=False):
        found += [each.message.id for each in page]
        after, calls = page[-1].id, calls + 1
    assert sorted(found) == sorted(dead)
    assert calls > 3  # one is enough for all of them, if bytes do not count


async def test_the_server_reads_the_next_part_while_one_is_decoded(
    redis_backend: Backend, dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_PART", 10)
    events, run, decode = [], Connection.run, dead_letters._bare

    def sent(self, script, *args):
        events.append("sent")
        return run(self, script, *args)

    def decoded(*args):
        events.append("decoded")
        return decode(*args)

    monkeypatch.setattr(Connection, "run", sent)
    monkeypatch.setattr(dead_letters, "_bare", decoded)
    subscription = await redis_backend.subscribe("orders.a", "alone")
    for delivery in await subscription.fetch(40, 5):
        await subscription.settle([(delivery, as_dead(delivery))])
    events.clear()
    found = await redis_backend.dead_letters("orders.a", "alone", limit=30, bodies=False)
    assert len(found) == 30
    assert events == ["sent"] + (["sent"] + ["decoded"] * 10) * 2 + ["decoded"] * 10
