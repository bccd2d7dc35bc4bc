"""Dead letters by fault: one group for each route and fault, in bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from abe_router.backend import Backend, DeadLetter, Reason
from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import new_message
from abe_router.operations import dead_groups as dead_groups_module
from abe_router.operations.dead_groups import DeadGroups, dead_groups, select
from abe_router.operations.dead_letters import DeadLetterFilter, list_dead_letters, read_pages

from .conftest import NAME, NO_CARD, NO_STOCK, ROUTE, dead_letters_of, died

Clients = Callable[[], Backend]


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with MemoryBackend() as backend:
        yield backend


def invalid(item: int) -> Reason:
    text = f"at /items/{item}/price: minimum: expected at least 0, found -1"
    return Reason("invalid", "PayloadInvalid", text, pointer=f"/items/{item}/price", keyword="minimum")


async def test_each_fault_is_one_group(shared: Clients) -> None:
    backend = shared()
    await dead_letters_of(backend, *map(invalid, range(1_000)), *[NO_STOCK] * 20, NO_CARD)
    found = await dead_groups(backend)
    assert [(group.count, group.kind, group.place) for group in found.groups] == [
        (1_000, "invalid", "minimum at /items/*/price"),
        (20, "failed", "KeyError in shop:charge"),
        (1, "failed", "OSError in shop:pay"),
    ]
    first = found.groups[0]
    assert first.shapes == ("at /items/<n>/price: minimum: expected at least <n>, found -<n>",)
    assert first.first_seen < first.last_seen
    assert (first.sample, first.message) == (
        (await backend.dead_letters(*ROUTE, limit=1_000))[-1].id,
        invalid(999).message,
    )
    assert await dead_groups(backend, ROUTE) == found
    assert await dead_groups(backend, ("orders.created", "audit")) == DeadGroups(())
    some = await dead_groups(backend, where=DeadLetterFilter(group=found.groups[1].group))
    assert some.groups == found.groups[1:2]


async def test_same_fault_of_two_routes_is_two_rows(backend: Backend) -> None:
    await backend.subscribe("orders.*", "audit")
    await dead_letters_of(backend, NO_STOCK)
    audit = await backend.subscribe("orders.*", "audit")
    await audit.settle([died(each, NO_STOCK) for each in await audit.fetch(10, 1)])
    found = (await dead_groups(backend)).groups
    assert [group.route for group in found] == ["orders.*/audit", NAME]
    assert len({group.group for group in found}) == 1


async def test_group_shows_shapes_revisions_and_replays(backend: Backend) -> None:
    def reason(status: int, number: int) -> Reason:
        text = f"order {number}: gateway answered status {status}"
        return Reason("failed", "GatewayError", text, type="shop.GatewayError", frame="shop:charge")

    await dead_letters_of(backend, *(reason(503, number) for number in range(5)), revision="9f2c")
    await dead_letters_of(backend, reason(520, 7), reason(429, 8), reason(404, 9), revision="1a2b")
    (first, *_) = await backend.dead_letters(*ROUTE)
    await backend.replay(*ROUTE, [first.id])
    subscription = await backend.subscribe(*ROUTE)
    await subscription.settle([died(each, reason(503, 1), "1a2b") for each in await subscription.fetch(1, 1)])
    (group,) = (await dead_groups(backend)).groups
    assert group.shapes == tuple(f"order <n>: gateway answered status {status}" for status in (503, 520, 429))
    assert group.revisions == {"9f2c": 4, "1a2b": 4}
    assert (group.count, group.replayed) == (8, 1)


async def test_dead_letters_that_come_meanwhile_are_counted_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abe_router.operations.dead_letters.PAGE", 10)
    await dead_letters_of(backend, *[NO_STOCK] * 30)
    subscription, read = await backend.subscribe(*ROUTE), backend.dead_letters

    async def read_and_die(*args: Any, **options: Any) -> Any:
        if len(page := await read(*args, **options)) == 10:
            await backend.append([new_message(ROUTE[0], b"1")])
            await subscription.settle([died(each, NO_STOCK) for each in await subscription.fetch(1, 1)])
        return page

    monkeypatch.setattr(backend, "dead_letters", read_and_die)
    (group,) = (await dead_groups(backend)).groups
    assert group.count == 33


async def test_lists_groups_and_selections_read_no_payload(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_letters_of(backend, *[NO_STOCK] * 3)
    read, asked = backend.dead_letters, []

    async def noted(*args: Any, bodies: bool = True, **options: Any) -> Any:
        asked.append(bodies)
        return await read(*args, bodies=bodies, **options)

    monkeypatch.setattr(backend, "dead_letters", noted)
    await dead_groups(backend)
    await select(backend, ROUTE, where=DeadLetterFilter(kind="failed"))
    await list_dead_letters(backend)
    assert set(asked) == {False}


async def test_next_page_is_read_while_the_caller_works_on_one(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abe_router.operations.dead_letters.PAGE", 40)
    await dead_letters_of(backend, *[NO_STOCK] * 80)
    read, done = backend.dead_letters, 0

    async def slow(*args: Any, **options: Any) -> Any:
        nonlocal done
        for _ in range(10):  # as a provider whose calls take several turns of the event loop
            await asyncio.sleep(0)
        page = await read(*args, **options)
        done += 1
        return page

    monkeypatch.setattr(backend, "dead_letters", slow)
    seen, read_then = 0, {}
    async for page in read_pages(backend, ROUTE):
        seen += len(page)
        read_then[seen] = done
    assert read_then[2] == 1
    assert read_then[40] == 2
    assert seen == 80


@pytest.mark.alone
async def test_groups_cost_a_small_multiple_of_decoding(backend: Backend) -> None:
    """Bound the processor time of 20,000 dead letters by that of decoding them."""
    number = 20_000
    uuids = [f"{n:08x}-0000-4000-8000-{n:012x}" for n in range(number)]
    reasons = (
        lambda n: Reason("failed", "KeyError", f"no {n}", type="KeyError", frame="shop:charge"),
        invalid,
        lambda n: Reason("rejected", "Reject", f"order {uuids[n]}: card {n} declined", type="Reject"),
    )
    await dead_letters_of(backend, *(reasons[n % 3](n) for n in range(number)))
    packed = [each.pack() for each in await backend.dead_letters(*ROUTE, limit=number)]
    decode = msgspec.json.Decoder(DeadLetter).decode
    grouping, decoding = [], []
    for _ in range(3):
        begin = time.process_time()
        found = await dead_groups(backend)
        middle = time.process_time()
        for each in packed:
            decode(each)
        grouping.append(middle - begin)
        decoding.append(time.process_time() - middle)
    assert [group.count for group in found.groups] == [6_667, 6_667, 6_666]
    assert min(grouping) < 5 * min(decoding)


async def test_number_of_groups_is_bounded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_groups_module, "MOST_GROUPS", 2)
    reasons = [Reason("rejected", "Reject", text, type="Reject") for text in "abcbaa"]
    await dead_letters_of(backend, *reasons)
    found = await dead_groups(backend)
    assert [group.count for group in found.groups] == [3, 2]
    assert found.others == 1
