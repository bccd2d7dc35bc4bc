"""Finds what no new message announces: due retries, leases that ran out, lost groups.

It runs on a timer, whatever the traffic, and asks for all subscriptions of this process in a few calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import islice

from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.notifier import Notifier
from abe_router.backends.redis.scripts import DUE, REAP
from abe_router.backends.redis.stream_state import PendingReason, StreamState
from abe_router.backoff import wait_for_event
from abe_router.errors import BackendError

_log = logging.getLogger(__name__)

#: Longest and shortest time between two checks, in seconds; half the shortest lease lies between them.
INTERVAL, SHORTEST = 1.0, 0.05
#: How far ahead, in milliseconds, the server reports due times, so that each is met exactly.
HORIZON = 1500
#: Streams in one call, which must be short, because the server does nothing else meanwhile.
_CHUNK = 100
#: How often, in seconds, idle consumers are deleted, and for how long, in milliseconds, they must have been
#: idle. They hold nothing, so nothing depends on it.
_REAPING, _IDLE = 300.0, 3_600_000
#: For how long, in seconds, further losses of groups are collected for one log line.
_COLLECT = 1.0


class LossLog:
    """Logs the first lost group at once, and those that follow within a second in one line."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._more = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: str, group: str) -> None:
        """Log a group that was created again, now or together with others."""
        if self._timer:
            self._more += 1
            return
        _log.warning(
            "the group `%s` of stream `%s` was gone and begins anew: "
            "what it had not settled is lost, or comes again if the stream is still there",
            group,
            stream,
        )
        self._timer = self._loop.call_later(_COLLECT, self.flush)

    def flush(self) -> None:
        """Log what was collected."""
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if self._more:
            _log.warning("%d more groups were gone and begin anew", self._more)
            self._more = 0


class Reaper:
    """Signals streams when something can be claimed, or when their group is gone."""

    def __init__(self, connection: Connection, notifier: Notifier) -> None:
        self._connection, self._notifier = connection, notifier
        #: The log of groups that were created again.
        self.losses = LossLog()
        self._loop = asyncio.get_running_loop()
        self._streams: dict[StreamState, None] = {}
        self._peers: dict[tuple[str, str], set[StreamState]] = {}
        # With their times: a timer of uvloop has no `when` if it is due within the millisecond.
        self._timers: dict[tuple[str, str], tuple[float, asyncio.Handle]] = {}
        self._reaped_at = self._loop.time()
        self._shortest = HORIZON
        self._shorter = asyncio.Event()

    def add(self, stream: StreamState) -> None:
        """Check a stream from now on."""
        self._streams[stream] = None
        if stream.lease < self._shortest:
            self._shorter.set()
        self._peers.setdefault((stream.stream, stream.group), set()).add(stream)

    def remove(self, stream: StreamState) -> None:
        """Check a stream no more."""
        self._streams.pop(stream, None)
        name = stream.stream, stream.group
        if (peers := self._peers.get(name)) is not None:
            peers.discard(stream)
            if not peers:
                del self._peers[name]
                self._cancel(name)

    def groups(self) -> Iterable[tuple[str, str]]:
        """Return each stream with its group."""
        return tuple(self._peers)

    def expect(self, stream: StreamState, seconds: float) -> None:
        """Signal all handles of this subscription in so many seconds that there is something to claim."""
        name = stream.stream, stream.group
        if seconds <= 0:
            self._signal(name)
            return
        at = self._loop.time() + seconds
        if name in self._timers and self._timers[name][0] <= at:
            return
        self._cancel(name)
        self._timers[name] = at, self._loop.call_at(at, self._signal, name)

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        try:
            while True:
                await self._pause()
                await self._round()
        finally:
            self.losses.flush()

    async def _round(self) -> None:
        try:
            await self.check()
            if self._loop.time() - self._reaped_at > _REAPING:
                self._reaped_at = self._loop.time()
                await self._reap()
        except BackendError:
            return  # the next fetch raises it
        if not self._notifier.up:
            self._notifier.notify_all()

    async def _pause(self) -> None:
        """Wait until the next check is due; a new stream with a shorter lease brings it forward."""
        began = self._loop.time()
        while True:
            self._shorter.clear()
            self._shortest = min((stream.lease for stream in self._streams), default=HORIZON)
            pause = began + min(INTERVAL, max(SHORTEST, self._shortest / 2000)) - self._loop.time()
            if not await wait_for_event(self._shorter, pause):
                return

    async def check(self) -> None:
        """Check all streams once."""
        for streams in _chunks(self._streams):
            keys: list[str] = []
            args: list[str | int] = [HORIZON]
            for stream in streams:
                keys += (stream.stream, stream.delayed)
                args += (stream.group, stream.lease)
            answers = await self._connection.run(DUE, keys, args)
            for stream, wait in zip(streams, answers, strict=True):
                if wait >= 0:
                    self.expect(stream, wait / 1000)
                elif wait == -2 and stream in self._streams:
                    stream.pending.signal(PendingReason.GROUP_LOST, [stream])

    async def _reap(self) -> None:
        for streams in _chunks(self._streams):
            for stream in streams:
                self._connection.run(REAP, (stream.stream,), (stream.group, _IDLE))
            await self._connection.send("PING")

    def _cancel(self, name: tuple[str, str]) -> None:
        if timer := self._timers.pop(name, None):
            timer[1].cancel()

    def _signal(self, name: tuple[str, str]) -> None:
        self._cancel(name)
        for stream in self._peers.get(name, ()):
            stream.pending.signal(PendingReason.CLAIMABLE, [stream])


def _chunks(streams: Iterable[StreamState]) -> Iterable[Sequence[StreamState]]:
    left = iter(tuple(streams))
    while chunk := tuple(islice(left, _CHUNK)):
        yield chunk
