"""A routes file at work in this process: what `serve`, the embedded Router and TestRouter share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from abe_router.backend import Backend
from abe_router.config.building.loader import Loader
from abe_router.consumer import Around
from abe_router.diagnostic import Diagnostic
from abe_router.edits.history import EditRecorder
from abe_router.edits.overrides import OverrideFollower
from abe_router.edits.reload import Reloader
from abe_router.messages.message import Message
from abe_router.observe.events import ConfigWarning, Events, Reloaded, ReloadRejected, Retried, Subscribed
from abe_router.observe.tally import ProcessCounts, ProcessTally, RouteCounts
from abe_router.observe.tracing import Tracing
from abe_router.routing.table import RouteTable
from abe_router.runtime.background import BackgroundTasks
from abe_router.runtime.failures import RecentFailures
from abe_router.runtime.heartbeat_reporter import HeartbeatReporter
from abe_router.runtime.publish import AroundPublish, publish, traced
from abe_router.runtime.reconciler import Reconciler

_log = logging.getLogger(__name__)


class Application:
    """Runs the consumers of a table on a backend: the parts that `serve`, Router and TestRouter share.

    With a `loader`, it follows the files of the table. With `heartbeat`, it reports itself, and each table
    that it accepts, to a backend that has a key-value store, and follows the overrides there; `number` is its
    number under a supervisor, 0 if it has none. If the program has set a tracer provider by now, messages are
    traced. Following and reporting are background tasks: an error in one of them is logged and never ends the
    application.
    """

    def __init__(
        self,
        table: RouteTable,
        backend: Backend,
        *,
        loader: Loader | None = None,
        listeners: Sequence[Subscribed] = (),
        heartbeat: bool = True,
        number: int = 0,
        around: Around | None = None,
        around_publish: AroundPublish | None = None,
    ) -> None:
        self._first, self._around_publish = table, around_publish
        self._tracing = Tracing.if_set_up()
        edited, self._reloaded = asyncio.Event(), asyncio.Event()
        wake = ((Reloaded, ReloadRejected), lambda _: edited.set())
        wake_other = ((Reloaded,), lambda _: self._reloaded.set())
        self._tally = ProcessTally()
        counted = (ProcessTally.KINDS, self._tally.on_event)
        failures = RecentFailures()
        events = self._events = Events(
            [*listeners, wake, wake_other, counted, ((Retried,), failures.on_event)]
        )
        self.backend = backend
        self.background = BackgroundTasks()
        self.reconciler = Reconciler(backend, events, around=around, tracing=self._tracing, admit=self._admit)
        self._heartbeat: HeartbeatReporter | None = None
        self._recorder: EditRecorder | None = None
        self._overrides: OverrideFollower | None = None
        if heartbeat and backend.features.key_value:
            overrides = self._overrides = OverrideFollower(
                backend, self.reconciler, events, changed=edited, reports=number < 2
            )
            self._heartbeat = HeartbeatReporter(
                backend,
                self.reconciler,
                events,
                edited=edited,
                rejected=lambda: self.rejected,
                obeyed=lambda: overrides.obeyed,
                outdated=lambda: () if self._reloader is None else self._reloader.outdated(),
                failures=failures,
                number=number,
            )
            self._recorder = EditRecorder(backend, number=number)
        self._reloader: Reloader | None = None
        if loader is not None:
            self._reloader = Reloader(loader, self.reconciler, events, recorder=self._recorder)
        self._cleanup = AsyncExitStack()
        self._drain: float | None = None
        self._abandoned = 0

    @property
    def table(self) -> RouteTable:
        """The table in force; after `stop`, the last one."""
        return self.reconciler.table

    @property
    def rejected(self) -> Sequence[Diagnostic]:
        """The diagnostics of the last edit; empty if it was accepted."""
        return () if self._reloader is None else self._reloader.rejected

    def counts(self) -> Mapping[str, RouteCounts]:
        """Return what each route has done in this process, by name; after `stop`, the last counts."""
        return self.reconciler.counts()

    def process_counts(self) -> ProcessCounts:
        """Return what this process has met, all routes together."""
        stalls = self.reconciler.stalls
        return self._tally.counts(stalls=stalls.stalls, stalled_seconds=stalls.stalled_seconds)

    async def start(self) -> None:
        """Open the backend, start the consumers, then the background tasks.

        Raise BackendError if the backend cannot be opened; nothing is left running then.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.backend.close)
            await self.backend.open()
            if self._heartbeat is not None:
                stack.push_async_callback(self._heartbeat.leave)
            stack.push_async_callback(self.background.stop)
            stack.push_async_callback(self._stop_consumers)
            try:
                await self.refresh_overrides()  # before a consumer starts that may be paused
            except Exception:  # noqa: BLE001  an error of a provider, which must not keep the routes from running
                _log.exception("cannot read the overrides, the routes start without them")
            if self._overrides is not None:
                self.background.start("following overrides", self._overrides.run)
            for warning in ConfigWarning.all_of(self._first.warnings, self._first.revision):
                self._events.emit(warning)
            await self.reconciler.apply(self._first)
            if self._recorder is not None:
                self._recorder.accept(self._first)
            if self._heartbeat is not None:
                self.background.start("the heartbeat", self._heartbeat.run)
                report = partial(self._heartbeat.report_restart, self._first, self._reloaded)
                self.background.start("reporting a restart that is due", report)
            if self._recorder is not None:
                self.background.start("recording edits", self._recorder.run)
            if self._reloader is not None:
                self.background.start("following the routes file", self._reloader.run)
                stack.callback(self._reloader.stop)
            self._cleanup = stack.pop_all()

    async def stop(self, drain: float | None = None) -> int:
        """Stop what `start` has started, in reverse order; return how many handlers were still running.

        Each route has its own drain time, or `drain` seconds. Running handlers may publish until the end.
        """
        self._drain = drain
        await self._cleanup.aclose()
        return self._abandoned

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Check a payload against the table in force and append it; see `runtime.publish.publish`."""
        around, tracing = self._around_publish, self._tracing
        if tracing is not None and tracing.wants_to_publish(headers):
            around = traced(tracing, around)
        return await publish(
            self.table, self.backend, key, payload, headers=headers, id=id, around=around, timeout=timeout
        )

    async def flush_traces(self, seconds: float) -> None:
        """Wait until the spans that have ended are exported, for at most `seconds`."""
        if self._tracing is not None:
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.to_thread(self._tracing.flush, seconds)
            except TimeoutError:
                _log.warning("the last spans are not exported: the exporter takes longer than the end may")
            except Exception:  # noqa: BLE001  an exporter is the program's own
                _log.exception("the last spans are not exported")

    async def refresh_overrides(self) -> None:
        """Read the overrides in the backend, and put them into force now."""
        if self._overrides is not None:
            await self._overrides.refresh()

    async def _admit(self, route: str) -> bool:
        """Return whether a consumer may subscribe now: see `HeartbeatReporter.admit`."""
        return self._heartbeat is None or await self._heartbeat.admit(route)

    async def _stop_consumers(self) -> None:
        self._abandoned = await self.reconciler.stop(self._drain)
