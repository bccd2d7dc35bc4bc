"""Replays of dead letters as operations that go on after a crash.

A replay moves a selection of dead letters back to their own route. Its record is in the bucket `replays` of
the key-value store, and the selection, which never changes, in the bucket `replay-selections`.

States of the record:

    running   a process moves dead letters, or was killed while it did
    stopped   it was interrupted, stopped by a command, or too many messages died again
    done      all dead letters of the selection were moved, or were gone

Transitions: running -> stopped, running -> done, stopped -> running.

Invariants: the first `position` dead letters of the selection are moved. The next `pending` may be: the
record is stored before they are moved, so after a crash exactly these are unsure. To move them again is safe,
because the backend moves each dead letter once. Each change of the record is a compare-and-set on its
revision. So of two processes one acts, and the other one raises ReplayTaken before it moves anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from abe_router.backend import Backend, SubscriptionName, next_number, read_stored
from abe_router.errors import BackendError
from abe_router.operations.audit import Author, record_act
from abe_router.operations.dead_groups import Selection
from abe_router.operations.errors import OperationError, UnknownReplay
from abe_router.operations.replay_watch import DeathWatch, UnsettledMessages
from abe_router.text import counted

#: The buckets of the records and of the selections.
REPLAYS, SELECTIONS = "replays", "replay-selections"
#: How long both are kept after their last change, in seconds.
KEPT = 30 * 86_400.0
#: Dead letters of one call, and of one stored part of a selection.
CHUNK, PART = 500, 5_000
#: Longest time without a change of the record while a replay waits, in seconds.
BEAT = 5.0
#: Shortest pause between two looks at the replayed messages, in seconds. A pause is also PATIENCE times as
#: long as the look took.
LOOK, PATIENCE = 0.2, 5.0

ReplayState = Literal["running", "stopped", "done"]


class Replay(msgspec.Struct, frozen=True):
    """The record of a replay.

    `rate` is in messages a second, None for no limit. The replay stops when `stop_after` messages died again;
    with None it does not look at them. `replayed` dead letters were moved, and `missing` were gone.
    `died_same` and `died_other` count the messages that died again, by the same fingerprint or by another
    one. `seen` is the newest dead letter that was looked at for that. With `wait`, the replay is done when
    all messages have ended, and `waiting` of them have not. `result` says why it ended.
    """

    number: int
    route: str
    author: str
    source: str
    why: str
    total: int
    started_at: float
    updated_at: float
    state: ReplayState = "running"
    rate: float | None = None
    stop_after: int | None = None
    wait: bool = False
    position: int = 0
    pending: int = 0
    replayed: int = 0
    missing: int = 0
    died_same: int = 0
    died_other: int = 0
    waiting: int = 0
    seen: str = ""
    result: str = ""

    @property
    def died(self) -> int:
        """How many messages died again."""
        return self.died_same + self.died_other

    @property
    def name(self) -> SubscriptionName:
        """The pattern and the group of its route."""
        pattern, _, group = self.route.rpartition("/")
        return pattern, group


class ReplayTaken(OperationError):
    """Raised when another process continued or stopped the replay."""


class _SelectionPart(msgspec.Struct, frozen=True, array_like=True):
    """A part of a selection: ids, and for each the index of its fingerprint."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    of: tuple[int, ...]


async def start_replay(
    backend: Backend,
    selection: Selection,
    author: Author,
    *,
    why: str = "",
    rate: float | None = None,
    stop_after: int | None = None,
    wait: bool = False,
) -> ReplayRun:
    """Store the record of a new replay; return what runs it. Nothing is moved yet."""
    _require_store(backend)
    if wait and not backend.features.peek:
        raise OperationError("the backend cannot peek, so the end of a message is not known")
    if stop_after is not None and rate is None:
        raise OperationError("a replay that stops after failures needs a rate, so that it can stop in time")
    now = time.time()
    first = Replay(
        number=0,
        route=selection.route,
        author=author.name,
        source=author.source,
        why=why,
        total=len(selection.ids),
        started_at=now,
        updated_at=now,
        rate=rate,
        stop_after=stop_after,
        wait=wait,
        missing=selection.missing,
        seen=selection.last,
    )
    number = next_number(await backend.entries(REPLAYS))
    while True:
        replay = msgspec.structs.replace(first, number=number)
        if revision := await _put(backend, replay, expected=0):
            break
        number += 1  # another process took it
    for at, part in enumerate(_parts(selection)):
        await backend.put(SELECTIONS, f"{number}.{at}", msgspec.json.encode(part), ttl=KEPT)
    return ReplayRun(
        backend, replay, revision, selection.ids, selection.fingerprints, selection.messages if wait else ()
    )


async def continue_replay(backend: Backend, number: int, author: Author) -> ReplayRun:
    """Take over a replay that stopped or whose process is gone; return what runs the rest of it.

    A process that still runs it ends. The ends of the messages are not waited for. Raise UnknownReplay, and
    OperationError if the replay is done.
    """
    _require_store(backend)
    replay, revision = await _get(backend, number)
    if replay.state == "done":
        raise OperationError(f"replay {number} is done: {replay.result}")
    ids: list[str] = []
    fingerprints: list[str] = []
    while len(ids) < replay.total:
        entry = await backend.get(SELECTIONS, f"{number}.{-(-len(ids) // PART)}")
        part = entry and read_stored(entry.value, _SelectionPart)
        if not part:
            raise OperationError(f"the selection of replay {number} is not complete, so it cannot go on")
        ids += part.ids
        fingerprints += (part.names[index] for index in part.of)
    taken = msgspec.structs.replace(
        replay, state="running", result="", wait=False, author=author.name, source=author.source
    )
    if not (revision := await _put(backend, taken, expected=revision)):
        raise ReplayTaken(f"another process continued replay {number} at the same time")
    return ReplayRun(backend, taken, revision, ids, fingerprints)


async def stop_replay(backend: Backend, number: int, author: Author, *, why: str = "") -> Replay:
    """Stop a running replay; return its record. The process that runs it ends with its next step."""
    while True:
        replay, revision = await _get(backend, number)
        if replay.state != "running":
            raise OperationError(f"replay {number} is {replay.state}")
        result = f"stopped by {author.name}"
        stopped = msgspec.structs.replace(replay, state="stopped", result=result, updated_at=time.time())
        if await _put(backend, stopped, expected=revision):
            await record_act(backend, author, "dead replay stop", f"replay {number}", why=why)
            return stopped


async def replays(backend: Backend) -> Sequence[Replay]:
    """Return the records of all replays, newest first; none without a key-value store."""
    if not backend.features.key_value:
        return ()
    found = (read_stored(entry.value, Replay) for entry in (await backend.entries(REPLAYS)).values())
    return sorted((replay for replay in found if replay is not None), key=lambda each: -each.number)


class ReplayRun:
    """Runs one replay in this process."""

    def __init__(
        self,
        backend: Backend,
        replay: Replay,
        revision: int,
        ids: Sequence[str],
        fingerprints: Sequence[str],
        messages: Sequence[str] = (),
    ) -> None:
        self._backend, self._replay, self._revision = backend, replay, revision
        self._ids, self._fingerprints, self._messages = ids, fingerprints, messages
        self._died_before = replay.died
        self._watch: DeathWatch | None = None
        if replay.wait or replay.stop_after is not None:
            self._watch = DeathWatch(backend, replay.name, replay.seen)
            self._expect(0, replay.position + replay.pending)

    @property
    def replay(self) -> Replay:
        """The record as it is now."""
        return self._replay

    async def run(self) -> AsyncIterator[Replay]:
        """Move the dead letters that are left; yield the record after each step.

        When the caller is cancelled, the record is stored as stopped. Raise ReplayTaken when another process
        continued or stopped it, and BackendError; then it can be continued.
        """
        try:
            while self._replay.position < self._replay.total:
                await self._step()
                yield self._replay
                if self._may_die() <= 0:
                    await self._end("stopped", "too many")
                    yield self._replay
                    return
            if self._replay.wait:
                async for _ in self._ends():
                    yield self._replay
            await self._end("done", "")
            yield self._replay
        except asyncio.CancelledError:
            with suppress(ReplayTaken, BackendError):  # it can be continued all the same
                await self._end("stopped", "interrupted")
            raise

    async def _ends(self) -> AsyncIterator[None]:
        """Count in the record the messages that have not ended, until all have; yield after each look."""
        unsettled = UnsettledMessages(self._backend, self._replay.name, self._messages)
        self._change(waiting=len(self._messages))
        await self._save()  # shows at once that all have been moved
        while self._replay.waiting:
            began = time.monotonic()
            self._change(waiting=await unsettled.look())
            await self._look()  # afterwards: what was settled meanwhile is among the dead letters by now
            yield
            if self._replay.waiting:
                await asyncio.sleep(max(LOOK, PATIENCE * (time.monotonic() - began)))
                await self._keep_fresh()

    def _may_die(self) -> int:
        """Return how many more messages may die until the replay stops, at most a chunk."""
        limit = self._replay.stop_after
        return CHUNK if limit is None else min(CHUNK, limit - (self._replay.died - self._died_before))

    async def _step(self) -> None:
        """Move as many dead letters as the rate allows, or wait for it for a while.

        At most a chunk, and at most as many as may die, because all of them may before the next look.
        """
        begin = self._replay.position
        repeated = self._replay.pending
        wanted = repeated or min(self._may_die(), self._replay.total - begin)
        count = wanted if repeated else await self._allowed(wanted)
        if count:
            await self._save(pending=count)
            if self._watch is not None:
                self._expect(begin, begin + count)
            moved = await self._backend.replay(*self._replay.name, self._ids[begin : begin + count])
            if repeated:
                moved = count  # the process before has moved the others
            self._change(
                position=begin + count,
                pending=0,
                replayed=self._replay.replayed + moved,
                missing=self._replay.missing + count - moved,
            )
        await self._look()

    async def _allowed(self, wanted: int) -> int:
        """Return how many dead letters may be moved now; 0 after a wait."""
        rate = self._replay.rate
        if rate is None:
            return wanted
        granted, seconds = await self._backend.take_tokens(f"replay:{self._replay.route}", rate, wanted)
        if not granted:
            await asyncio.sleep(min(seconds, BEAT))
            await self._keep_fresh()
        return granted

    async def _keep_fresh(self) -> None:
        """Store the record now and then, which shows that the replay runs, and finds that it was stopped."""
        if time.time() - self._replay.updated_at > BEAT:
            await self._save()

    def _expect(self, begin: int, end: int) -> None:
        assert self._watch is not None
        self._watch.expect(zip(self._ids[begin:end], self._fingerprints[begin:end], strict=True))

    async def _look(self) -> None:
        """Count the messages that died again since the last look."""
        if self._watch is None:
            return
        same, other = await self._watch.look()
        self._change(
            died_same=self._replay.died_same + same,
            died_other=self._replay.died_other + other,
            seen=self._watch.seen,
        )

    async def _end(self, state: ReplayState, result: str) -> None:
        replay = self._replay
        done = f"replayed {replay.replayed:,} of {replay.total:,}"
        missing = f"{replay.missing:,} not found" if replay.missing else ""
        died = f"{counted(replay.died, 'message')} died again" if replay.died else ""
        self._change(state=state, result=", ".join(filter(None, (done, missing, died, result))))
        await self._save()
        if state == "done":
            for at in range(-(-replay.total // PART)):
                await self._backend.delete(SELECTIONS, f"{replay.number}.{at}")
        author = Author(replay.author, replay.source)
        await record_act(
            self._backend,
            author,
            "dead replay",
            replay.route,
            why=replay.why,
            result=f"replay {replay.number}: {self._replay.result}",
        )

    def _change(self, **changes: object) -> None:
        self._replay = msgspec.structs.replace(self._replay, **changes)

    async def _save(self, **changes: object) -> None:
        """Store the record; raise ReplayTaken if another process changed it."""
        self._change(updated_at=time.time(), **changes)
        put = asyncio.ensure_future(_put(self._backend, self._replay, expected=self._revision))
        try:
            revision = await asyncio.shield(put)
        except asyncio.CancelledError:
            self._revision = await put or self._revision  # the next change needs it
            raise
        if not revision:
            raise ReplayTaken(
                f"replay {self._replay.number} was continued or stopped by another process",
                hint="`abe-router dead replays` shows its state",
            )
        self._revision = revision


def _require_store(backend: Backend) -> None:
    if not backend.features.key_value:
        raise OperationError(
            "the backend has no key-value store, so it cannot keep the progress of a replay",
            hint="`abe-router backends` lists the features",
        )


async def _get(backend: Backend, number: int) -> tuple[Replay, int]:
    entry = await backend.get(REPLAYS, str(number))
    replay = entry and read_stored(entry.value, Replay)
    if not entry or not replay:
        raise UnknownReplay(f"there is no replay {number}", hint="`abe-router dead replays` lists them")
    return replay, entry.revision


async def _put(backend: Backend, replay: Replay, *, expected: int) -> int:
    value = msgspec.json.encode(replay)
    return await backend.put(REPLAYS, str(replay.number), value, expected=expected, ttl=KEPT)


def _parts(selection: Selection) -> Sequence[_SelectionPart]:
    parts = []
    for begin in range(0, len(selection.ids), PART):
        fingerprints = selection.fingerprints[begin : begin + PART]
        names = tuple(dict.fromkeys(fingerprints))
        index = {name: at for at, name in enumerate(names)}
        ids = selection.ids[begin : begin + PART]
        parts.append(_SelectionPart(ids, names, tuple(index[name] for name in fingerprints)))
    return parts
