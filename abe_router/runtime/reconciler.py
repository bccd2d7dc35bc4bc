"""The running table: one consumer for each route, changed by handing it another table."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import Executor

from abe_router.backend import Backend
from abe_router.backoff import Backoff, wait_for_event
from abe_router.consumer import Consumer
from abe_router.observe.events import Events, Reloaded
from abe_router.routing.handler import THREADS
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.retention import RetentionLoop
from abe_router.runtime.threads import Threads

_log = logging.getLogger(__name__)


class Reconciler:
    """Keeps the consumers of a table running.

    Every method belongs to one event loop. A consumer that fails of itself is started again after a pause
    and leaves the others alone.
    """

    def __init__(self, backend: Backend, events: Events, *, table: RouteTable | None = None) -> None:
        self._backend, self._events = backend, events
        self._table = table or RouteTable()
        self._seats: dict[str, _Seat] = {}
        self._threads = Threads(THREADS)
        self._number = 0
        #: Whether it was told to stop, for good.
        self.stopped = False
        self._housekeeping = RetentionLoop(backend)

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        return self._table

    @property
    def consumers(self) -> dict[str, Consumer]:
        """The consumers that run now, by route; those that are draining to end are among them."""
        return {name: s.consumer for name, s in self._seats.items() if s.consumer is not None}

    async def apply(self, table: RouteTable) -> Reloaded:
        """Make `table` the one in force; return the receipt once every change has been carried out.

        Routes that did not change keep their consumer untouched. A removed or changed route stops to
        fetch, finishes what it has in hand within its drain time and hands the rest back; only then does
        a changed one start anew. Added routes wait for nobody. May be called while an earlier call is
        still waiting for a drain: the later table wins. Once `stop` was called it is too late, and nothing
        changes any more.
        """
        began = time.perf_counter()
        if self.stopped:
            table = self._table
        diff = self._table.diff(table)
        self._table = table
        self._housekeeping.follow(table.retain)
        self._number += 1
        number = self._number
        touched = []
        for name, route in [
            *((route.name, None) for route in diff.removed),
            *((new.name, new) for _, new in diff.changed),
            *((route.name, route) for route in diff.added),
        ]:
            seat = self._seats.get(name)
            if seat is None:
                seat = self._seats[name] = _Seat(self._backend, self._events, self._threads)
            seat.want(route, table.revision)
            touched.append((name, seat))
        for name, seat in touched:
            await seat.steady()
            if seat.empty and self._seats.get(name) is seat:
                del self._seats[name]
        receipt = Reloaded(
            number=number,
            revision=table.revision,
            added=_names(diff.added),
            removed=_names(diff.removed),
            changed=_names(new for _, new in diff.changed),
            kept=len(diff.kept),
            seconds=time.perf_counter() - began,
        )
        if not self.stopped:
            self._events.emit(receipt)
        return receipt

    async def stop(self, drain: float | None = None) -> int:
        """Stop all consumers, each within its drain time or `drain` seconds; return how many did not end.

        Idempotent; a second call with a shorter `drain` shortens the first.
        """
        self.stopped, self._table = True, RouteTable()
        seats = list(self._seats.values())
        for seat in seats:
            seat.want(None, "", drain)
        for seat in seats:
            await seat.steady()
        await self._housekeeping.stop()
        self._seats.clear()
        self._threads.shutdown(cancel_futures=True)
        return sum(seat.abandoned for seat in seats)


def _names(routes: Iterable[Route]) -> tuple[str, ...]:
    return tuple(route.name for route in routes)


class _Seat:
    """The place of one route's consumer: runs the one that is wanted, one at a time."""

    def __init__(self, backend: Backend, events: Events, threads: Executor) -> None:
        self._backend, self._events, self._threads = backend, events, threads
        self._wanted: tuple[Route, str] | None = None
        self._wanted_anew, self._steady = asyncio.Event(), asyncio.Event()
        self._turns: asyncio.Task[None] | None = None
        self.consumer: Consumer | None = None
        self.abandoned = 0

    @property
    def empty(self) -> bool:
        """Whether nothing runs here and nothing is wanted."""
        return self._wanted is None and (self._turns is None or self._turns.done())

    def want(self, route: Route | None, revision: str, drain: float | None = None) -> None:
        """Have `route` run here, or nothing; what runs now is stopped first."""
        self._wanted = None if route is None else (route, revision)
        self._wanted_anew.set()
        if self.consumer is not None:
            self.consumer.stop(drain)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        self._steady.clear()

    async def steady(self) -> None:
        """Wait until what is wanted runs, or until nothing does."""
        await self._steady.wait()

    async def _take_turns(self) -> None:
        backoff = Backoff()
        while self._wanted is not None:
            wanted = self._wanted
            self._wanted_anew.clear()
            self.consumer = Consumer(
                wanted[0], self._backend, self._events, revision=wanted[1], threads=self._threads
            )
            began = time.monotonic()
            running = asyncio.create_task(self.consumer.run())
            await self.consumer.started.wait()
            if self._wanted is wanted:
                self._steady.set()
            try:
                await running
            except Exception:  # noqa: BLE001  one consumer must not end the others
                _log.exception("the consumer of %s failed and is started again", wanted[0].name)
                if time.monotonic() - began > backoff.longest:
                    backoff.reset()
                await wait_for_event(self._wanted_anew, backoff.next())
            finally:
                self.abandoned = self.consumer.abandoned
                self.consumer = None
        self._steady.set()
