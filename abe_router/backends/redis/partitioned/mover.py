"""Moves what the outbox of a partition has to the partitions of their keys.

One mover of all processes owns an outbox while its lease lasts. That only saves work: any number of movers is
right. Each reads from the head of the outbox, in order, and deletes an output after it was appended, and
`move.lua` appends each output once, whichever mover is first. So a mover may die or stand still at any step.

States of a mover:

- *passing*: it reads the outbox, page by page, from the head to the end.
- *waiting*: it owns the outbox, and waits for an entry; now and then it passes, to keep the ownership.
- *standing by*: another mover owns the outbox. It passes when that ownership ends.

Invariants:

- Outputs to one key are appended in the order of the outbox: an output that cannot be appended holds up all
  later ones to that key until the next pass, and an absent partition all later ones to it.
- An entry is deleted only after its output was appended, and after so many replicas as `replicas` says have
  it.
- A move is remembered for REMEMBERED seconds where it went. A mover that has read a page gives it up after a
  tenth of that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from abe_router.backends.redis.entry import pack_headers
from abe_router.backends.redis.layout import Layout
from abe_router.backends.redis.names import OUTBOX
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.partitioned.outbox import Move
from abe_router.backends.redis.partitioned.partition import Partition
from abe_router.backends.redis.protocol import Arg
from abe_router.backends.redis.scripts import ANSWER_BYTES, MOVE, RENEW
from abe_router.backends.redis.scripts import OUTBOX as READ_OUTBOX
from abe_router.backoff import Backoff, LogThrottle, wait_for_event
from abe_router.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: For how many seconds a move is remembered where it went. Within it, an output may be moved again: because a
#: mover died, because a failover brought the entry back, or because it undid the ack of the cause.
REMEMBERED = 600.0
#: For how long a mover owns an outbox, in seconds, and how often it asks again while it waits.
LEASE = 5.0
#: Outputs of one page.
_PAGE = 500
#: How long closing waits for the server, in seconds.
_PATIENCE = 1.0
#: Delay before a mover begins anew, in seconds.
_DELAY = 1.0
#: How long replicas may take to confirm, in seconds.
_CONFIRMED_WITHIN = 1.0


class Mover:
    """The mover of one outbox. `target` returns the number of the partition of a key, `connect` opens it."""

    def __init__(
        self, source: Node, target: Callable[[str], int], connect: Callable[[int], Awaitable[Node]]
    ) -> None:
        self._source, self._target, self._connect = source, target, connect
        self._name = secrets.token_hex(8)
        self._owner = source.names.owner(OUTBOX, "mover")
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(0.05, 1.0)
        self._throttle = LogThrottle()
        self._failing_since: float | None = None
        #: The notifier waits for entries as for messages.
        self.stream = source.names.stream(OUTBOX)
        self.position = b"0-0"

    def wake(self) -> None:
        """Pass soon."""
        self._woken.set()

    async def run(self) -> None:
        """Move, until cancelled."""
        while True:
            self._woken.clear()
            try:
                pause = await self._pass()
            except BackendError as error:
                self._failed(str(error))
                pause = self._backoff.next()
            await wait_for_event(self._woken, pause)

    async def close(self) -> None:
        """Let another mover own the outbox at once."""
        self._source.notifier.cancel(self)
        with suppress(BackendError, TimeoutError):  # then it ends with its lease
            async with asyncio.timeout(_PATIENCE):
                await self._source.connection.run(RENEW, (self._owner,), (self._name, 0))

    async def _pass(self) -> float:
        """Move what can be moved; return in how many seconds to pass again, at the latest."""
        await self._source.connection.open()
        self._source.notifier.cancel(self)
        held_up: set[str | int] = set()
        after, full = "-", True
        while full:
            args = (self._name, round(LEASE * 1000), after, _PAGE, ANSWER_BYTES)
            wait, rows, full = await self._source.connection.run(
                READ_OUTBOX, (self._owner, self.stream), args
            )
            if wait:
                return float(wait) / 1000 + 0.01
            if rows:
                after = "(" + rows[-1][0].decode()
                full = full or len(rows) == _PAGE
                if done := await self._move(rows, held_up):
                    await self._source.connection.send("XDEL", self.stream, *done)
        if held_up:
            return self._backoff.next()
        self._backoff.reset()
        self._failing_since = None
        self._source.notifier.wait(self)
        return LEASE / 2

    async def _move(
        self, rows: Iterable[tuple[bytes, Sequence[bytes]]], held_up: set[str | int]
    ) -> list[bytes]:
        """Move a page; return the entries whose outputs were appended, and add what is held up."""
        until = self._loop.time() + REMEMBERED / 10
        parts: dict[int, list[Move]] = defaultdict(list)
        for entry, fields in rows:
            move = Move.read(entry, fields)
            if move is None:
                self._failed(f"entry {entry.decode()} of `{self.stream}` is no output")
                continue
            number = self._target(move.message.key)
            if held_up.isdisjoint((move.message.key, number)):
                parts[number].append(move)
        done = await asyncio.gather(
            *(self._append(number, part, held_up, until) for number, part in parts.items())
        )
        return [entry for entries in done for entry in entries]

    async def _append(
        self, number: int, moves: Sequence[Move], held_up: set[str | int], until: float
    ) -> list[bytes]:
        """Append to one partition; return the entries of what was appended."""
        keys: dict[str, int] = {}
        args: list[Arg] = [round(REMEMBERED * 1000)]
        for move in moves:
            message = move.message
            args += (
                keys.setdefault(message.key, len(keys) + 1),
                math.ceil(move.window * 1000),
                move.identity,
            )
            args += (message.id, message.body, message.published_at, pack_headers(message.headers))
        try:
            refused = await self._send(await self._connect(number), tuple(keys), args, until)
        except BackendError as error:
            held_up.add(number)
            self._failed(str(error))
            return []
        reasons = dict(zip(refused[::2], refused[1::2], strict=True))
        for position, why in reasons.items():
            held_up.add(moves[position].message.key)
            self._failed(f"`{moves[position].message.key}`: {why.decode('utf-8', 'replace')}")
        return [move.entry for position, move in enumerate(moves) if position not in reasons]

    async def _send(
        self, node: Node, keys: Sequence[str], args: Sequence[Arg], until: float
    ) -> Sequence[Any]:
        """Append to the streams of these keys; raise BackendError if that is not certain."""
        await node.appending.open()
        if self._loop.time() > until:
            raise BackendUnavailable("this process stood still for too long")
        streams = node.appender.prepare(keys)
        names = (node.names.moved, *streams, *map(node.names.ids, keys))
        reply = node.appending.run(MOVE, names, args)
        node.appender.notify(streams)
        refused: Sequence[Any] = await reply
        if node.replicas and await node.appending.confirm(node.replicas, _CONFIRMED_WITHIN) < node.replicas:
            raise BackendUnavailable(f"fewer than {node.replicas} replicas confirmed")
        return refused

    def _failed(self, why: str) -> None:
        """Log why outputs stay in the outbox, less often the longer it lasts."""
        now = self._loop.time()
        if self._failing_since is None:
            self._failing_since, self._throttle = now, LogThrottle()
        if self._throttle.is_due(now - self._failing_since):
            _log.warning("outputs wait in `%s`: %s", self.stream, why)


class Movers:
    """A mover for each partition, in each process that has a subscription.

    It has one for partitions that it does not read too: what filled their outbox may be gone.
    """

    def __init__(self, partitions: Sequence[Partition], layout: Layout) -> None:
        self._partitions, self._layout = partitions, layout
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to move, once; with one partition there is nothing to move."""
        if not self._running and self._layout.count > 1:
            self._running = [asyncio.create_task(self._run(each)) for each in self._partitions]

    async def close(self) -> None:
        """Stop moving; other processes continue at once."""
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, partition: Partition) -> None:
        while True:
            try:
                source = await partition.opened()
                source.start_notifier()
                mover = Mover(source, self._layout.number, self._open)
                try:
                    await mover.run()
                finally:
                    await mover.close()
            except BackendError:
                pass  # the server is absent, as each call that needs it says
            except Exception:  # noqa: BLE001  the next attempt may succeed
                _log.exception("a mover failed, and begins anew")
            await asyncio.sleep(_DELAY)

    async def _open(self, number: int) -> Node:
        return await self._partitions[number].opened()
