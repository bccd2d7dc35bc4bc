"""Reads that the server runs the moment the waker's wait ends, so that a message takes one round trip.

They are sent behind the wait, on its connection. They do not block either, but the answer is as long in
coming as the end of the wait. Nothing else reads the stream meanwhile, for what was read later might be
handed out earlier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from abe_router.backend import Delivery
from abe_router.backends.redis.intake import Asked, Intake
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.source import Agenda, Source
from abe_router.backends.redis.waker import BLOCK, Waker
from abe_router.errors import BackendError, BackendUnavailable

#: Most entries of one read. Should this process stand still, they wait for it, or for their leases to end.
_MOST = 16
#: How long, in seconds, what has arrived may be kept by whoever is told.
KEPT = 1.0


class FollowUps:
    """The reads of one handle that wait with the waker.

    `landed` is called when one is answered, with what it brought and whether that may be handed out: not
    when this process stood still for so long that most of the leases may be over.
    """

    def __init__(
        self, intake: Intake, agenda: Agenda, waker: Waker, landed: Callable[[list[Delivery], bool], None]
    ) -> None:
        self._intake, self._agenda, self._waker, self._on_landed = intake, agenda, waker, landed
        self._loop = asyncio.get_running_loop()
        self._room = 0
        self._under_way: set[asyncio.Future[object]] = set()

    def offer(self, limit: int) -> None:
        """Have so many entries read at most, if that is of use, for a fetch that begins to wait."""
        self._room = min(limit, _MOST)
        source = self._agenda.expected
        if source and source not in self._agenda.followed and _good_for(source) >= BLOCK:
            self._waker.behind(source, lambda line: self._send(source, line))

    def withdraw(self) -> None:
        """Send no read that was not sent yet: the fetch waits no more."""
        self._room = 0

    def _send(self, source: Source, line: Line) -> None:
        if not self._room:
            return
        asked_at = self._loop.time()
        try:
            asked = self._intake.read(source, self._room, line)
        except BackendUnavailable:  # who waits is woken, and asks by itself
            return
        self._under_way.add(asked[-1])
        self._agenda.followed.add(source)
        asked[-1].add_done_callback(lambda _: self._landed(asked, asked_at))

    async def end(self, patience: float) -> None:
        """Have them answered now; wait for that so many seconds at most."""
        until = self._loop.time() + patience
        while self._under_way and (left := until - self._loop.time()) > 0:
            self._waker.unblock()
            await asyncio.wait(self._under_way, timeout=left)

    def _landed(self, asked: Asked, asked_at: float) -> None:
        source, _, answer = asked
        self._under_way.discard(answer)
        self._agenda.followed.discard(source)
        found: list[Delivery] = []
        try:
            if answer.exception() or answer.result() or not self._waker.rests(source):
                found = self._intake.accept([asked])
        except BackendError:
            # Whoever fetches is told. The server may not know that this line is gone, and run the read yet.
            agenda = self._agenda
            self._loop.call_later(BLOCK, agenda.mark, agenda.adopt, [source])
        self._on_landed(found, self._loop.time() - asked_at < _good_for(source))


def _good_for(source: Source) -> float:
    """Return for how many seconds from being asked for a delivery may be handed out.

    Whoever gets it may count on two thirds of its lease, from when he began to fetch.
    """
    return source.lease / 3000 - KEPT
