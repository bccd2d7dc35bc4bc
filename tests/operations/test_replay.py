"""A replay as an operation: it survives crashes, doubles nothing, keeps its rate, counts what died again."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from abe_router.backend import ACKED, Backend, DeadLetter, Reason
from abe_router.backends.memory import MemoryBackend
from abe_router.operations import replay as replay_module
from abe_router.operations.audit import Author, acts
from abe_router.operations.dead_groups import select
from abe_router.operations.dead_letters import DeadLetterFilter
from abe_router.operations.errors import OperationError
from abe_router.operations.replay import (
    Replay,
    ReplayRun,
    ReplayTaken,
    UnknownReplay,
    continue_replay,
    replays,
    start_replay,
    stop_replay,
)

from .conftest import NAME, NO_CARD, NO_STOCK, ROUTE, dead_letters_of, died

ADA = Author("ada@host", "command line")
Clients = Callable[[], Backend]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "CHUNK", 3)
    monkeypatch.setattr(replay_module, "PART", 4)
    monkeypatch.setattr(replay_module, "LOOK", 0.01)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with MemoryBackend() as backend:
        yield backend


async def finished(run: ReplayRun) -> Replay:
    async for _ in run.run():
        pass
    return run.replay


async def handled(backend: Backend) -> Counter[str]:
    """Handle everything that the route is given; return how often each message came."""
    subscription = await backend.subscribe(*ROUTE)
    came = Counter[str]()
    while found := await subscription.fetch(500, 0.1):
        came.update(each.message.id for each in found)
        await subscription.settle([(each, ACKED) for each in found])
    await subscription.close()
    return came


async def test_replay_moves_what_was_selected_and_nothing_later(backend: Backend) -> None:
    first = await dead_letters_of(backend, *[NO_STOCK] * 7)
    selection = await select(backend, ROUTE, where=DeadLetterFilter(kind="failed"))
    later = await dead_letters_of(backend, NO_STOCK)
    done = await finished(await start_replay(backend, selection, ADA, why="stock is back"))
    assert (done.number, done.state, done.total, done.replayed, done.missing) == (1, "done", 7, 7, 0)
    assert await replays(backend) == [done]
    assert await backend.entries("replay-selections") == {}
    assert await handled(backend) == Counter(first)
    (left,) = await backend.dead_letters(*ROUTE)
    assert [left.message.id] == later
    (act,) = await acts(backend)
    assert (act.action, act.target, act.why) == ("dead replay", NAME, "stock is back")
    assert act.result == "replay 1: replayed 7 of 7"


async def test_selection_by_id_counts_what_is_missing(backend: Backend) -> None:
    await dead_letters_of(backend, NO_STOCK, NO_CARD, NO_STOCK)
    ids = [each.id for each in await backend.dead_letters(*ROUTE)]
    selection = await select(backend, ROUTE, ids=[ids[2], ids[0], ids[0], "nonsense"])
    assert (selection.ids, selection.missing) == ((ids[0], ids[2]), 1)
    assert [(group.kind, group.count) for group in selection.groups.groups] == [("failed", 2)]
    assert (await select(backend, ROUTE, first=2)).ids == tuple(ids[:2])
    await backend.purge(*ROUTE, [ids[0]])
    done = await finished(await start_replay(backend, selection, ADA))
    assert (done.replayed, done.missing) == (1, 2)


async def test_interrupted_replay_goes_on_without_doubling(shared: Clients) -> None:
    backend = shared()
    sent = await dead_letters_of(backend, *[NO_STOCK] * 10)
    run = await start_replay(backend, await select(backend, ROUTE), ADA)
    task = asyncio.create_task(finished(run))
    while not run.replay.position:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (stopped,) = await replays(backend)
    assert stopped.state == "stopped"
    assert "interrupted" in stopped.result
    done = await finished(await continue_replay(shared(), 1, ADA))
    assert (done.state, done.replayed, done.missing) == ("done", 10, 0)
    assert await handled(backend) == Counter(sent)
    with pytest.raises(OperationError, match="replay 1 is done"):
        await continue_replay(backend, 1, ADA)


@pytest.mark.parametrize("moved", [False, True], ids=["before the move", "after the move"])
async def test_crash_around_a_move_is_mended(
    shared: Clients, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between storing its intent and moving, or between moving and storing that it has."""
    backend = shared()
    sent = await dead_letters_of(backend, *[NO_STOCK] * 10)
    run = await start_replay(backend, await select(backend, ROUTE), ADA)
    calls, move = 0, backend.replay

    async def crash(*args: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            if moved:
                await move(*args)  # type: ignore[arg-type]
            raise MemoryError
        return await move(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "replay", crash)
    with pytest.raises(MemoryError):
        await finished(run)
    (left,) = await replays(shared())
    assert (left.state, left.position, left.pending) == ("running", 3, 3)
    done = await finished(await continue_replay(shared(), 1, ADA))
    assert (done.state, done.replayed, done.missing) == ("done", 10, 0)
    assert await handled(backend) == Counter(sent)


async def test_killed_replay_goes_on_without_doubling(
    shared: Clients, shared_url: str, tmp_path: Path
) -> None:
    backend = shared()
    sent = await dead_letters_of(backend, *[NO_STOCK] * 12)
    command = [sys.executable, "-m", "abe_router", "dead", "replay", NAME, "--all", "--rate", "20/s"]
    place = ["--backend", shared_url, "--prefix", f"{tmp_path.name}.", "-c", str(tmp_path / "none.yaml")]
    process = await asyncio.create_subprocess_exec(*command, *place)
    while len(await backend.dead_letters(*ROUTE)) > 9:
        await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    (left,) = await replays(backend)
    assert (left.state, left.position < 12) == ("running", True)
    done = await finished(await continue_replay(backend, 1, ADA))
    assert (done.state, done.replayed, done.missing) == ("done", 12, 0)
    assert await handled(backend) == Counter(sent)


async def test_process_that_lost_its_replay_moves_nothing_more(shared: Clients) -> None:
    one, two = shared(), shared()
    sent = await dead_letters_of(one, *[NO_STOCK] * 10)
    run = await start_replay(one, await select(one, ROUTE), ADA)
    async with aclosing(run.run()) as steps:
        await anext(steps)
        other = await continue_replay(two, 1, ADA)
        with pytest.raises(ReplayTaken):
            await anext(steps)
    assert (await finished(other)).replayed == 10
    assert await handled(one) == Counter(sent)


async def test_replay_is_stopped_from_elsewhere(backend: Backend) -> None:
    await dead_letters_of(backend, *[NO_STOCK] * 10)
    run = await start_replay(backend, await select(backend, ROUTE), ADA)
    async with aclosing(run.run()) as steps:
        await anext(steps)
        stopped = await stop_replay(backend, 1, Author("bob", "http 10.0.0.3"), why="wrong group")
        assert (stopped.state, stopped.result) == ("stopped", "stopped by bob")
        with pytest.raises(ReplayTaken):
            await anext(steps)
    with pytest.raises(OperationError, match="replay 1 is stopped"):
        await stop_replay(backend, 1, ADA)
    for number in (2, 0):
        with pytest.raises(UnknownReplay):
            await stop_replay(backend, number, ADA)
    assert [act.action for act in await acts(backend)] == ["dead replay stop"]


async def test_rate_holds_in_sum_over_two_processes(shared: Clients) -> None:
    one, two = shared(), shared()
    sent = await dead_letters_of(one, *[NO_STOCK] * 40)
    whole = await select(one, ROUTE)
    halves = [
        msgspec.structs.replace(whole, ids=whole.ids[part], fingerprints=whole.fingerprints[part])
        for part in (slice(0, 20), slice(20, 40))
    ]
    began = time.monotonic()
    runs = [await start_replay(b, half, ADA, rate=50.0) for b, half in zip((one, two), halves, strict=True)]
    done = await asyncio.gather(*map(finished, runs))
    # A burst is a tenth of a second.
    assert time.monotonic() - began >= (40 - 5) / 50.0 - 0.05
    assert [replay.replayed for replay in done] == [20, 20]
    assert await handled(one) == Counter(sent)


@pytest.mark.parametrize("reason", [NO_STOCK, NO_CARD], ids=["same fault", "another fault"])
async def test_wait_says_what_died_again(shared: Clients, reason: Reason) -> None:
    backend = shared()
    await dead_letters_of(backend, *[NO_STOCK] * 6)
    run = await start_replay(backend, await select(backend, ROUTE, first=4), ADA, wait=True)
    subscription = await backend.subscribe(*ROUTE)
    waiting = asyncio.create_task(finished(run))
    held = []
    while len(held) < 4:
        held += await subscription.fetch(4, 1)
    await subscription.settle([(held[0], ACKED), died(held[1], reason)])
    while run.replay.waiting != 2:
        await asyncio.sleep(0.01)
    assert not waiting.done()
    await subscription.settle([(held[2], ACKED), died(held[3], reason)])
    done = await waiting
    same = reason == NO_STOCK
    assert (done.state, done.died_same, done.died_other) == ("done", 2 * same, 2 * (not same))
    assert (done.waiting, done.result) == (0, "replayed 4 of 4, 2 messages died again")
    again = [each for each in await backend.dead_letters(*ROUTE) if each.replays]
    assert [each.replays for each in again] == [1, 1]
    assert {each.former for each in again} < set(run._ids)


async def test_stored_record_says_at_once_that_all_are_moved_and_wait(backend: Backend) -> None:
    await dead_letters_of(backend, *[NO_STOCK] * 4)
    run = await start_replay(backend, await select(backend, ROUTE), ADA, wait=True)
    async with aclosing(run.run()) as steps:
        async for waiting in steps:
            if waiting.waiting:
                break
        (stored,) = await replays(backend)
    assert (stored.position, stored.waiting, stored.state) == (4, 4, "running")


async def test_replay_stops_after_failures_and_goes_on(shared: Clients) -> None:
    backend, worker = shared(), shared()
    await dead_letters_of(backend, *[NO_STOCK] * 60)
    subscription = await worker.subscribe(*ROUTE)

    async def fail() -> None:
        while True:
            found = await subscription.fetch(1, 1)
            await subscription.settle([died(each, NO_STOCK) for each in found])

    failing = asyncio.create_task(fail())
    run = await start_replay(backend, await select(backend, ROUTE), ADA, rate=40.0, stop_after=3)
    stopped = await finished(run)
    assert stopped.state == "stopped"
    assert stopped.died >= 3
    assert stopped.position < 60
    assert "died again, too many" in stopped.result
    again = await finished(await continue_replay(backend, 1, ADA))
    assert again.state == "stopped"
    assert again.died >= stopped.died + 3  # three more, and none is counted twice
    failing.cancel()
    with suppress(asyncio.CancelledError):
        await failing
    replayed: list[DeadLetter] = [each for each in await backend.dead_letters(*ROUTE) if each.replays]
    assert again.died <= len(replayed) <= again.replayed


async def test_replay_moves_no_more_at_a_time_than_may_die(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_letters_of(backend, *[NO_STOCK] * 60)
    subscription, move, moved = await backend.subscribe(*ROUTE), backend.replay, list[int]()

    async def die_at_once(*args: Any) -> int:
        moved.append(await move(*args))
        found = await subscription.fetch(60, 1)
        is_first = len(moved) == 1
        await subscription.settle([(each, ACKED) if is_first else died(each, NO_STOCK) for each in found])
        return moved[-1]

    monkeypatch.setattr(backend, "replay", die_at_once)
    run = await start_replay(backend, await select(backend, ROUTE), ADA, rate=10_000.0, stop_after=2)
    stopped = await finished(run)
    assert (stopped.state, stopped.died, moved) == ("stopped", 2, [2, 2])


async def test_failures_cannot_stop_a_replay_without_a_rate(backend: Backend) -> None:
    with pytest.raises(OperationError, match="needs a rate"):
        await start_replay(backend, await select(backend, ROUTE), ADA, stop_after=1)


async def test_two_replays_that_start_at_once_have_two_numbers(shared: Clients) -> None:
    clients = [shared(), shared()]
    selection = await select(clients[0], ROUTE)
    runs = await asyncio.gather(*(start_replay(client, selection, ADA) for client in clients))
    assert sorted(run.replay.number for run in runs) == [1, 2]
    assert [each.number for each in await replays(clients[0])] == [2, 1]


async def test_selection_that_is_not_complete_is_not_continued(backend: Backend) -> None:
    await dead_letters_of(backend, *[NO_STOCK] * 6)
    await start_replay(backend, await select(backend, ROUTE), ADA)
    await backend.delete("replay-selections", "1.1")
    with pytest.raises(OperationError, match="not complete"):
        await continue_replay(backend, 1, ADA)
