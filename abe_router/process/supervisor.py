"""The supervisor: runs several worker processes of one routes file."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path

from abe_router.diagnostic import Diagnostic
from abe_router.errors import ConfigError
from abe_router.files.watch import Fingerprint, Watch, fingerprint
from abe_router.observe.events import ConfigWarning, Reloaded, ReloadRejected, RestartNeeded
from abe_router.observe.logs import log_event
from abe_router.observe.metrics import WorkersState
from abe_router.observe.tally import ProcessCounts, RouteCounts
from abe_router.process.channel import (
    FORCE,
    Accepted,
    Applying,
    Counts,
    Outdated,
    Rejected,
    Running,
    Warned,
    WorkerMessage,
)
from abe_router.process.collector import Collector
from abe_router.process.signals import GRACE, Signals
from abe_router.process.slot import CommandLine, WorkerProcess, WorkerSlot
from abe_router.process.systemd import ServiceNotifier
from abe_router.text import format_duration

_log = logging.getLogger("abe_router")

#: How long workers may take to exit at once, in seconds. After that they are killed.
SHUTDOWN_GRACE = 2.0
#: Reports of the same change by several workers within this time, in seconds, are logged once.
DEDUPE_WINDOW = 5.0
#: The share of the processors that a container may use, by Linux's control groups, version 2.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Supervisor:
    """Keeps `workers` worker processes running; `command_line` returns the command line of each.

    The workers share the groups of the backend, and each follows the routes file. A worker that ends is
    replaced, after a delay that grows up to half a minute, and never given up. With `once`, the workers end
    by themselves and the supervisor ends with them. With `reload_handlers`, a change of handler code replaces
    the workers one by one. The supervisor tells `service` its state. If `service` has a watchdog, a worker
    whose event loop stands still for that time is killed and replaced. `beside` returns what is entered
    before the first worker starts, and left after the last one has ended.
    """

    def __init__(
        self,
        command_line: CommandLine,
        workers: int,
        *,
        once: bool = False,
        reload_handlers: bool = False,
        service: ServiceNotifier | None = None,
        beside: Callable[[Supervisor], AbstractAsyncContextManager[object]] | None = None,
    ) -> None:
        self._command_line, self._reload_handlers = command_line, reload_handlers
        self._beside = beside
        self._service = service or ServiceNotifier()
        #: The workers that put an edit into force, or the whole supervisor while it replaces them.
        self._changing: set[object] = set()
        self._stopping = asyncio.Event()
        self._forced_by = 0
        self._forcing: asyncio.Task[None] | None = None
        self._workers: set[WorkerProcess] = set()
        self._collector = Collector()
        self._slots = [
            WorkerSlot(partial(self._start, number), self._stopping, once=once)
            for number in range(1, workers + 1)
        ]
        self._is_up = False
        self._watch = Watch(self._code)
        self._rejected: tuple[Diagnostic, ...] = ()
        #: The revisions that were logged as in force, in that order, and the warnings of the last one.
        self._reloads: list[str] = []
        self._warned: set[ConfigWarning] = set()
        self._logged_at: dict[Outdated, float] = {}

    async def run(self) -> int:
        """Run until a signal, or until the workers are done; return the exit code.

        The first worker starts alone. If it cannot run, its exit code is returned, or ConfigError is raised
        if the routes file has errors. Otherwise the code is 0 if the last worker of each slot exited with 0,
        1 if one did not, and 128 plus the signal's number if a second signal forced the exit.
        """
        signals = Signals(self._stop, self._force, begin=self._service.stopping, grace=SHUTDOWN_GRACE + GRACE)
        with signals:
            async with nullcontext() if self._beside is None else self._beside(self):
                return await self._run()

    def counts(self) -> Mapping[str, RouteCounts]:
        """Return what each route has done in all workers since the start."""
        return self._collector.counts()

    def process_counts(self) -> ProcessCounts:
        """Return what all workers have met since the start."""
        return self._collector.process_counts()

    @property
    def workers(self) -> WorkersState:
        """How many workers are wanted and run, and what is wrong with them."""
        return WorkersState(
            wanted=len(self._slots),
            running=sum(slot.is_up for slot in self._slots),
            restarts=sum(slot.restarts for slot in self._slots),
            silence=max((slot.silence for slot in self._slots), default=0.0),
        )

    @property
    def started(self) -> bool:
        """Whether the routes of the first worker have run."""
        return self._is_up

    @property
    def draining(self) -> bool:
        """Whether the supervisor has asked the workers to end."""
        return self._stopping.is_set()

    @property
    def missing(self) -> tuple[str, ...]:
        """The reasons for which not all workers run their routes."""
        numbered = enumerate(self._slots, 1)
        return tuple(
            f"worker {number} does not run its routes" for number, slot in numbered if not slot.is_up
        )

    def runs(self, revision: str) -> bool:
        """Return whether a worker has put the table of this revision into force."""
        return any(worker.revision == revision and not worker.has_ended for worker in self._workers)

    async def _run(self) -> int:
        first = await self._slots[0].fill()
        if first is None:
            return 0
        await first.settled.wait()
        if not first.has_run:
            if first.diagnostics:
                raise ConfigError(first.diagnostics)
            code = await first.ended()
            return code if code >= 0 else 128 - code
        self._is_up = True
        self._service.ready(self._state())
        following = asyncio.create_task(self._follow_code())
        pinging = asyncio.create_task(self._service.ping_until_cancelled(self._kill_silent))
        codes = await asyncio.gather(*(slot.keep() for slot in self._slots))
        pinging.cancel()
        self._watch.stop()
        await following
        if self._forced_by:
            return 128 + self._forced_by
        return 1 if any(codes) else 0

    async def _start(self, number: int) -> WorkerProcess:
        worker = await WorkerProcess.start(number, self._command_line, self._on_message, later=self._is_up)
        self._workers = {worker, *(other for other in self._workers if not other.has_ended)}
        if self._stopping.is_set():
            worker.stop()
        return worker

    def _kill_silent(self) -> None:
        """Kill the workers whose event loop does not run; their slots replace them."""
        for worker in self._workers:
            is_running = worker.has_run and not worker.has_ended and not worker.is_stopping
            if is_running and worker.silence > self._service.watchdog:
                silence = format_duration(worker.silence)
                _log.error("%s is killed: its event loop stands still for %s", worker, silence)
                worker.kill()

    def _state(self) -> str:
        running = sum(worker.has_run and not worker.has_ended for worker in self._workers)
        return f"{running} of {len(self._slots)} workers run"

    def _change(self, changing: object, *, ends: bool = False) -> None:
        """Note that a worker, or all of them, begin or end to put a change into force."""
        before = bool(self._changing)
        (self._changing.discard if ends else self._changing.add)(changing)
        self._changing -= {worker for worker in self._workers if worker.has_ended}
        if self._changing and not before:
            self._service.reloading("a change is put into force")
        elif before and not self._changing:
            self._service.ready(self._state())

    def _stop(self) -> None:
        self._stopping.set()
        for worker in self._workers:
            worker.stop()

    def _force(self, number: int) -> None:
        self._forced_by = number
        if self._forcing is None:
            self._forcing = asyncio.create_task(self._kill_workers())

    async def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.send(FORCE)
        await asyncio.sleep(SHUTDOWN_GRACE)
        for worker in self._workers:
            worker.kill()

    def _on_message(self, worker: WorkerProcess, message: WorkerMessage) -> None:
        """Log once what all workers report about the routes file."""
        match message:
            case Running() if not worker.has_run:
                _log.info("%s runs", worker)
            case Counts():
                self._collector.record(worker, message)
            case Applying():
                self._change(worker)
            case Accepted():
                self._rejected = ()
                self._change(worker, ends=True)
                if self._is_news(worker, message.reloaded):
                    log_event(message.reloaded)
            case Warned(warning) if warning not in self._warned and not self._joins(worker):
                self._warned.add(warning)
                log_event(warning)
            case Rejected() if self._is_up:
                if message.diagnostics != self._rejected:
                    self._rejected = message.diagnostics
                    fault = message.diagnostics[0].message
                    self._service.status(f"{self._state()}; an edit is rejected: {fault}")
                    log_event(ReloadRejected(message.diagnostics))
            case Outdated() if not (self._reload_handlers and message.what == "handler code"):
                now = time.monotonic()
                if now > self._logged_at.get(message, -DEDUPE_WINDOW) + DEDUPE_WINDOW:
                    self._logged_at[message] = now
                    log_event(RestartNeeded(message.what, message.path))

    def _is_news(self, worker: WorkerProcess, reloaded: Reloaded) -> bool:
        """Return whether no other worker has reported this reload.

        All workers follow the same edits in the same order, but not at the same time: each walks along the
        revisions that were logged. A worker that joins others, or replaces one, begins at their end.
        """
        revision, seen = reloaded.revision, self._reloads[worker.reloads :]
        if reloaded.number == 1 and (self._joins(worker) or revision in self._reloads[-1:]):
            worker.reloads = len(self._reloads)
            return False
        if reloaded.number > 1 and revision in seen:
            worker.reloads += seen.index(revision) + 1
            return False
        self._reloads.append(revision)
        worker.reloads = len(self._reloads)
        self._warned = {warning for warning in self._warned if warning.revision == revision}
        return True

    def _joins(self, worker: WorkerProcess) -> bool:
        """Return whether a worker starts while another one runs."""
        return not worker.has_run and any(each.has_run and not each.has_ended for each in self._workers)

    def _code(self) -> Iterable[Path]:
        return frozenset().union(*(slot.code for slot in self._slots))

    async def _follow_code(self) -> None:
        """Replace the workers after each change of a file that defines their handlers."""
        if not self._reload_handlers:
            return
        seen: Fingerprint = {}
        async for _ in self._watch.signs():
            now = fingerprint(self._code())
            # A missing file is being saved, or is no longer imported.
            found = {path: state for path, state in now.items() if state is not None}
            changed = [path for path, state in found.items() if seen.get(path, state) != state]
            changed += [path for path in found if path not in seen and self._is_newer(path, found[path][2])]
            seen |= found
            if changed and not self._stopping.is_set():
                await self._replace_all(changed)

    def _is_newer(self, path: Path, modified: int) -> bool:
        """Return whether a file was modified after the start of a worker that uses it.

        `modified` is in nanoseconds since the epoch.
        """
        return any(modified > worker.started_at * 1e9 for worker in self._workers if path in worker.code)

    async def _replace_all(self, changed: Iterable[Path]) -> None:
        self._rejected = ()
        _log.info("handler code changed: %s", ", ".join(sorted(path.name for path in changed)))
        self._change(self)
        try:
            for slot in self._slots:
                if self._stopping.is_set() or not await slot.replace():
                    return
            _log.info("all workers run the new code")
        finally:
            self._change(self, ends=True)


def available_cores(quota: Path = QUOTA) -> int:
    """Return how many processors this process may use, rounded up to at least 1."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        known = min(known, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):  # no control groups, or no limit: the file contains `max`
        pass
    return max(1, known)
