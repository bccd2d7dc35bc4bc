"""The reconciler: makes the running consumers match a route table."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from abe_router.backend import Backend
from abe_router.backoff import Backoff, wait_for_event
from abe_router.consumer import (
    NO_LIMITS,
    Around,
    Consumer,
    Recovery,
    RouteLimits,
    StallMonitor,
    SuspectGate,
)
from abe_router.observe.events import Events, Reloaded, RouterStopped
from abe_router.observe.tally import RouteCounts, RouteTally
from abe_router.observe.tracing import Tracing
from abe_router.routing.difference import difference
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.retention import RetentionLoop
from abe_router.runtime.threads import Threads

_log = logging.getLogger(__name__)


class Reconciler:
    """Keeps one consumer running for each route of a table.

    All methods belong to one event loop. A consumer that fails is started again with backoff; the others are
    not affected. `around` makes a context manager for each call of a handler, and `tracing` a span; it
    follows the options of the table. `retention` removes settled messages; without one, the default intervals
    apply. `admit` is asked before each subscription; see `Consumer`.
    """

    def __init__(
        self,
        backend: Backend,
        events: Events,
        *,
        around: Around | None = None,
        tracing: Tracing | None = None,
        retention: RetentionLoop | None = None,
        admit: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._backend, self._events, self._around = backend, events, around
        self._admit = admit
        self._tracing = tracing
        self._table = RouteTable()
        self._routes: dict[str, _RouteReconciler] = {}
        self._tallies: dict[str, RouteTally] = {}
        self._limits: Mapping[str, RouteLimits] = {}
        self._recovery, self._suspects = Recovery(), SuspectGate()
        #: Counts how often the event loop was blocked.
        self.stalls = StallMonitor()
        self._number = 0
        self._retention = retention or RetentionLoop(backend)
        #: Whether `stop` was called, after which nothing is started.
        self.stopped = False
        #: The last table that came into force, by its number.
        self.last_reload: Reloaded | None = None

    @property
    def table(self) -> RouteTable:
        """The table in force; after `stop`, the last one."""
        return self._table

    @property
    def consumers(self) -> dict[str, Consumer]:
        """The running consumers by route, including those that are draining."""
        return {name: r.consumer for name, r in self._routes.items() if r.consumer is not None}

    def counts(self) -> Mapping[str, RouteCounts]:
        """Return what each route has done, those that are draining too; after `stop`, the last counts.

        The counts of a route last as long as it is in the table. A reload of a changed route keeps them.
        """
        consumers = self.consumers
        return {
            name: consumers[name].counts() if name in consumers else tally.counts()
            for name, tally in self._tallies.items()
        }

    def limit(self, limits: Mapping[str, RouteLimits]) -> None:
        """Put the limits of routes into force at once, also for consumers that start later.

        Routes that are not named have none. No consumer is restarted.
        """
        self._limits = limits
        for name, consumer in self.consumers.items():
            consumer.limit(limits.get(name, NO_LIMITS))

    def is_paused(self, route: Route) -> bool:
        """Whether the route is paused, in the file or by an operator."""
        return route.paused or self._limits.get(route.name, NO_LIMITS).paused

    async def apply(self, table: RouteTable) -> Reloaded:
        """Put `table` into force; return what changed, once every change is carried out.

        A route that did not change keeps its consumer, untouched. A removed or changed route stops fetching,
        finishes what it runs within its drain time and releases the rest; after that, a changed one starts
        anew. Added routes start at once. A second call may overlap a first one that still waits for a drain:
        the later table wins. After `stop` nothing changes any more.
        """
        began = time.perf_counter()
        if self.stopped:
            table = self._table
        former, self._table = self._table, table
        diff = former.diff(table)
        self._retention.follow(table.retain)
        if self._tracing is not None:
            self._tracing.follow(table.trace)
        self._number += 1
        number = self._number
        touched = []
        for name, route in [
            *((route.name, None) for route in diff.removed),
            *((new.name, new) for _, new in diff.changed),
            *((route.name, route) for route in diff.added),
        ]:
            reconciler = self._routes.get(name)
            if reconciler is None:
                reconciler = self._routes[name] = _RouteReconciler(self._make_consumer)
                self._tallies[name] = RouteTally()
            reconciler.set_desired(route, table.revision)
            touched.append((name, reconciler))
        for name, reconciler in touched:
            await reconciler.settled()
            if reconciler.is_idle and self._routes.get(name) is reconciler:
                del self._routes[name]
                self._tallies.pop(name, None)
        reloaded = Reloaded(
            number=number,
            revision=table.revision,
            added=_names(diff.added),
            removed=_names(diff.removed),
            changed=_names(new for _, new in diff.changed),
            kept=len(diff.kept),
            seconds=time.perf_counter() - began,
            changes=tuple(difference(former, table).lines()) if number > 1 else (),
        )
        if not self.stopped:
            if self.last_reload is None or number > self.last_reload.number:
                self.last_reload = reloaded
            self._events.emit(reloaded)
        return reloaded

    async def stop(self, drain: float | None = None) -> int:
        """Stop all consumers; return how many handlers were still running at the end.

        Each consumer has its route's drain time, or `drain` seconds. Idempotent; a second call with a shorter
        `drain` shortens the first.
        """
        is_first, self.stopped = not self.stopped, True
        began, routes = time.perf_counter(), list(self._routes.values())
        for reconciler in routes:
            reconciler.set_desired(None, "", drain)
        for reconciler in routes:
            await reconciler.settled()
        await self._retention.stop()
        self._routes.clear()
        released = sum(reconciler.released for reconciler in routes)
        abandoned = sum(reconciler.abandoned for reconciler in routes)
        if is_first:
            seconds = time.perf_counter() - began
            self._events.emit(RouterStopped(len(routes), released, abandoned, seconds))
        return abandoned

    def _make_consumer(self, route: Route, revision: str, threads: Threads) -> Consumer:
        return Consumer(
            route,
            self._backend,
            self._events,
            revision=revision,
            threads=threads,
            around=self._around,
            tracing=self._tracing,
            limits=self._limits.get(route.name, NO_LIMITS),
            recovery=self._recovery,
            suspects=self._suspects,
            stalls=self.stalls,
            tally=self._tallies[route.name],
            admit=self._admit,
        )


def _names(routes: Iterable[Route]) -> tuple[str, ...]:
    return tuple(route.name for route in routes)


class _RouteReconciler:
    """Makes the consumer of one route, by its name, match the desired route; at most one runs at a time.

    States: idle (no task), running (the consumer of the desired route), draining (the consumer of an earlier
    route stops), backing off (the consumer failed and none runs). `set_desired` starts the task when it is
    idle, makes a running consumer drain, and ends a backoff. The task ends, and the state is idle, once
    nothing is desired and nothing runs. Settled is set while the consumer of the desired route runs, or while
    nothing is desired and nothing runs.
    """

    def __init__(self, make_consumer: Callable[[Route, str, Threads], Consumer]) -> None:
        self._make_consumer = make_consumer
        self._desired: tuple[Route, str] | None = None
        self._changed, self._settled = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: The consumer that runs or drains.
        self.consumer: Consumer | None = None
        #: How many deliveries the last consumer released, and how many handlers it left running.
        self.released = self.abandoned = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is desired."""
        return self._desired is None and (self._task is None or self._task.done())

    def set_desired(self, route: Route | None, revision: str, drain: float | None = None) -> None:
        """Set the route to run, or None; the running consumer is stopped first."""
        self._desired = None if route is None else (route, revision)
        self._changed.set()
        if self.consumer is not None:
            self.consumer.stop(drain)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reconcile())
            self._task.add_done_callback(self._end)
        self._settled.clear()

    async def settled(self) -> None:
        """Wait until the desired route runs, or until nothing runs if none is desired."""
        await self._settled.wait()

    def _end(self, task: asyncio.Task[None]) -> None:
        if task is self._task:  # it was cancelled, perhaps before it could settle
            self._settled.set()

    async def _reconcile(self) -> None:
        backoff = Backoff()
        while self._desired is not None:
            desired = self._desired
            self._changed.clear()
            # Threads of its own: a handler that hangs takes none from another route.
            threads = Threads(desired[0].concurrency, desired[0].name)
            self.consumer = self._make_consumer(*desired, threads)
            began = time.monotonic()
            running = asyncio.create_task(self.consumer.run())
            await self.consumer.started.wait()
            if self._desired is desired:
                self._settled.set()
            try:
                await running
            except asyncio.CancelledError:
                # Nothing here cancels this task, but a handler may cancel all tasks of the loop.
                _log.error("%s: the consumer was cancelled, and stops", desired[0].name)
                await asyncio.wait({running})  # it hands back what it has
                raise
            except Exception:  # noqa: BLE001  a consumer that fails must not end the others
                _log.exception("%s: the consumer failed and is started again", desired[0].name)
                if time.monotonic() - began > backoff.longest:
                    backoff.reset()
                await wait_for_event(self._changed, backoff.next())
            finally:
                self.released, self.abandoned = self.consumer.released, self.consumer.abandoned
                self.consumer = None
                threads.shutdown(cancel_futures=True)
        self._settled.set()
