"""The index of dead letters: what it reads again, what it leaves out, and how it finds them."""

from __future__ import annotations

import time

import pytest

from abe_router.backends import make_backend
from abe_router.operations import dead_index
from abe_router.operations.dead_groups import select
from abe_router.operations.dead_index import DeadLetterIndex
from abe_router.operations.dead_letters import DeadLetterFilter
from tests.dashboard.letters import INVALID, ROUTE, Dying, kill


class Counted:
    """Counts the dead letters that a backend returns."""

    def __init__(self, backend):
        self.read, self._original = 0, backend.dead_letters
        backend.dead_letters = self._dead_letters

    async def _dead_letters(self, *arguments, **options):
        found = await self._original(*arguments, **options)
        self.read += len(found)
        return found


@pytest.fixture
async def backend():
    async with make_backend("memory://") as found:
        yield found


@pytest.fixture
async def index(backend, monkeypatch):
    """Return an index whose every refresh reads, and waits until it is done."""
    monkeypatch.setattr(dead_index, "FRESH", 0.0)
    monkeypatch.setattr(dead_index, "PATIENCE", 10.0)
    return DeadLetterIndex(lambda: backend)


async def test_a_refresh_reads_only_what_came_since_the_last_one(backend, index):
    await kill(backend, [Dying({})] * 5)
    counted = Counted(backend)
    await index.refresh()
    assert counted.read == 5
    await index.refresh()
    assert counted.read == 5
    await kill(backend, [Dying({}, INVALID)])
    counted.read = 0
    state = await index.refresh()
    assert counted.read == 1
    assert (state.read, state.total, state.error, state.is_partial) == (6, 6, "", False)


async def test_a_refresh_reads_a_route_again_after_dead_letters_have_gone(backend, index, monkeypatch):
    monkeypatch.setattr(dead_index, "SPARING", 1e9)
    ids = await kill(backend, [Dying({}, id=f"m{number}") for number in range(5)])
    await index.refresh()
    await backend.replay(*ROUTE, ids[:2])
    await index.refresh()
    assert index.route(ROUTE).messages == ["m2", "m3", "m4"]
    await backend.purge(*ROUTE, ids[2:3])
    await index.refresh()
    assert len(index.route(ROUTE)) == 3  # it was read just now, so the backend is spared
    assert [each.id for each in await index.route(ROUTE).fetch(backend, [0, 1, 2])] == ids[3:]
    index.forget(ROUTE)
    await index.refresh()
    assert index.route(ROUTE).ids == ids[3:]
    await backend.purge(*ROUTE, ids)
    await index.refresh()
    assert list(index.routes()) == []


async def test_a_dead_letter_that_replaces_another_one_is_found_in_time(backend, index, monkeypatch):
    monkeypatch.setattr(dead_index, "LOOK", 0.0)
    ids = await kill(backend, [Dying({})] * 2)
    await index.refresh()
    await backend.purge(*ROUTE, ids[:1])
    ids = await kill(backend, [Dying({})])
    await index.refresh()
    assert index.route(ROUTE).ids == ids


async def test_a_dead_letter_with_an_id_before_the_last_one_is_found(backend, index):
    ids = await kill(backend, [Dying({})] * 3)
    original, hidden = backend.dead_letters, True

    async def late(*arguments, **options):
        return [each for each in await original(*arguments, **options) if not hidden or each.id != ids[1]]

    backend.dead_letters = late
    await index.refresh()
    assert index.route(ROUTE).ids == [ids[0], ids[2]]
    hidden = False
    await index.refresh()
    assert index.route(ROUTE).ids == ids


async def test_the_index_and_a_selection_agree_on_every_filter(backend, index):
    await kill(backend, [Dying({}, ago=9000 - number, id=f"m{number}") for number in range(30)])
    await kill(backend, [Dying({}, INVALID, ago=60, revision="bb12")] * 3)
    await index.refresh()
    route = index.route(ROUTE)
    now = time.time()
    for where in (
        DeadLetterFilter(),
        DeadLetterFilter(kind="invalid"),
        DeadLetterFilter(group=route.groups[0], message_id="m7"),
        DeadLetterFilter(key="orders.*", revision="bb"),
        DeadLetterFilter(key="payments.#"),
        DeadLetterFilter(since=now - 8985, until=now - 8975),
    ):
        chosen = await select(backend, ROUTE, where=where)
        found = route.selection(route.positions(where))
        assert (found.ids, found.fingerprints, found.messages, found.last) == (
            chosen.ids,
            chosen.fingerprints,
            chosen.messages,
            chosen.last,
        ), where
    assert route.count(range(33)) == {route.groups[0]: 30, route.groups[-1]: 3}


async def test_scattered_dead_letters_are_read_in_few_calls(backend, index):
    ids = await kill(backend, [Dying({})] * 200)
    await index.refresh()
    counted = Counted(backend)
    found = await index.route(ROUTE).fetch(backend, [3, 5, 9, 150, 199])
    assert [each.id for each in found] == [ids[at] for at in (3, 5, 9, 150, 199)]
    assert counted.read == 9


async def test_the_index_has_the_oldest_ones_of_too_many(backend, index, monkeypatch):
    monkeypatch.setattr(dead_index, "MOST", 4)
    ids = await kill(backend, [Dying({})] * 6)
    for _ in range(2):
        state = await index.refresh()
        assert index.route(ROUTE).ids == ids[:4]
        assert (state.read, state.total, state.is_partial) == (4, 6, True)


async def test_trends_count_the_failures_of_each_hour(backend, index):
    await kill(backend, [Dying({}, ago=ago) for ago in (-30, 5, 10, 3700, 90_000)])
    await index.refresh()
    (trend,) = index.route(ROUTE).trends(time.time()).values()
    assert list(trend) == [0] * 22 + [1, 3]
