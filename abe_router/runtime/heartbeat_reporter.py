"""Reports a running router to its backend, periodically and after each edit."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from abe_router.backend import Backend
from abe_router.backend.health import unserved
from abe_router.backends import make_backend
from abe_router.backoff import wait_for_event
from abe_router.diagnostic import Diagnostic
from abe_router.errors import BackendError
from abe_router.messages.message import new_id
from abe_router.observe.events import Events, OrphanedSubscription
from abe_router.routing.table import RouteTable
from abe_router.runtime.activity import ActivityReporter
from abe_router.runtime.edit_files import absolute_path
from abe_router.runtime.failures import FAILURES, KEPT, RecentFailures
from abe_router.runtime.heartbeat import (
    DELETIONS,
    EVERY,
    RESTARTS,
    TTL,
    WORKERS,
    DiagnosticReport,
    PendingRestart,
    ReloadReport,
    RouteState,
    WorkerReport,
    served_routes,
)
from abe_router.runtime.reconciler import Reconciler
from abe_router.text import json_safe, redact_url

_log = logging.getLogger(__name__)


class HeartbeatReporter:
    """Reports a router to its backend, and emits an event for each subscription that no router consumes.

    The backend has a key-value store. `edited` is set whenever there is something new to report: an edit was
    accepted or rejected, or overrides changed. `rejected` returns the diagnostics of the last edit, `obeyed`
    the overrides in force, and `outdated` the changed files of code. `failures` are stored too. Of several
    workers of one supervisor, only the first, by `number`, looks for orphaned subscriptions.
    """

    def __init__(
        self,
        backend: Backend,
        reconciler: Reconciler,
        events: Events,
        *,
        edited: asyncio.Event,
        rejected: Callable[[], Sequence[Diagnostic]],
        obeyed: Callable[[], Mapping[str, int]] = dict,
        outdated: Callable[[], Sequence[Path]] = list,
        failures: RecentFailures | None = None,
        number: int = 0,
    ) -> None:
        self._backend, self._reconciler, self._events = backend, reconciler, events
        self._edited, self._rejected, self._obeyed, self._number = edited, rejected, obeyed, number
        self._outdated, self._failures = outdated, failures
        self._name = f"{socket.gethostname()}-{os.getpid()}-{new_id()}"
        self._started_at = time.time()
        self._orphans: set[str] = set()
        self._activity = ActivityReporter(reconciler.counts)
        self._storing = asyncio.Lock()
        #: The routes of the last report, and until when it surely stands, by the clock of the event loop.
        self._reported, self._stands_until = frozenset[str](), 0.0

    async def run(self) -> None:
        """Report every few seconds, and at once after an edit, until cancelled."""
        is_first = self._number < 2
        looks = is_first
        while True:
            self._edited.clear()
            with suppress(BackendError):
                async with self._storing:
                    await self._store()
                if self._failures is not None and (failed := self._failures.take()) is not None:
                    await self._backend.put(FAILURES, self._name, failed, ttl=KEPT)
            if await wait_for_event(self._edited, EVERY):
                looks = is_first
            elif looks:  # by now the other workers of the backend have reported the new table too
                with suppress(BackendError):
                    await self._report_orphans()
                    looks = False

    async def admit(self, route: str) -> bool:
        """Report that this worker runs a route; return False while the route is being deleted.

        A worker that subscribes only after True loses nothing to a deletion. Raise BackendError.
        """
        async with self._storing:
            if route not in self._reported or asyncio.get_running_loop().time() > self._stands_until:
                await self._store()
        return await self._backend.get(DELETIONS, route) is None

    async def leave(self) -> None:
        """Delete the report; if that fails, it expires."""
        try:
            await self._backend.delete(WORKERS, self._name)
        except BackendError:
            pass
        except Exception:  # noqa: BLE001  an error of a provider must not end the shutdown
            _log.exception("cannot delete the report of this worker, it expires later")

    async def _store(self) -> None:
        began = asyncio.get_running_loop().time()
        routes = frozenset(self._reconciler.consumers)
        await self._backend.put(WORKERS, self._name, self._encoded(), ttl=TTL)
        self._reported, self._stands_until = routes, began + TTL / 2

    def _encoded(self) -> bytes:
        reconciler = self._reconciler
        table, last = reconciler.table, reconciler.last_reload
        interval, activity = self._activity.report()
        report = WorkerReport(
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            revision=table.revision,
            number=self._number,
            path=json_safe(str(table.path)) if table.path else None,
            routes={n: RouteState(c.in_flight, c.connected) for n, c in reconciler.consumers.items()},
            reload=None if last is None else msgspec.convert(last, ReloadReport, from_attributes=True),
            rejected=tuple(map(DiagnosticReport.of, self._rejected())),
            overrides=self._obeyed(),
            interval=interval,
            activity=activity,
            outdated=tuple(json_safe(str(path)) for path in self._outdated()),
            warnings=len(table.warnings),
        )
        return msgspec.json.encode(report)

    async def report_restart(self, served: RouteTable, edited: asyncio.Event) -> None:
        """Report to the backend that the file names now, while this router serves that of `served`."""
        while True:
            edited.clear()
            table = self._reconciler.table
            if table.path and (table.backend, table.prefix) != (served.backend, served.prefix):
                path, former = absolute_path(table.path), redact_url(served.backend)
                report = PendingRestart(socket.gethostname(), os.getpid(), path, former)
                with suppress(BackendError):
                    other = make_backend(table.backend, prefix=table.prefix)
                    if other.features.key_value and other.features.processes:
                        async with other:
                            await other.put(RESTARTS, self._name, msgspec.json.encode(report), ttl=TTL)
            await wait_for_event(edited, EVERY)

    async def _report_orphans(self) -> None:
        found = await served_routes(self._backend)
        if found.unreadable:  # they may run any route
            return
        statuses = await self._backend.status()
        served = {*found.routes, *self._reconciler.table.by_name}
        orphans = {status.name: held for status, held in unserved(statuses, served)}
        for route in orphans.keys() - self._orphans:
            self._events.emit(OrphanedSubscription(route, orphans[route]))
        self._orphans = set(orphans)
