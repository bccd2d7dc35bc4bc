"""One worker process: runs an application until a signal, a command, or the end of the work."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from abe_router.application import Application
from abe_router.backends import make_backend
from abe_router.backoff import Outage, wait_for_event
from abe_router.config.building.loader import Loader
from abe_router.edits.reload import code
from abe_router.errors import BackendError
from abe_router.observe.events import Event, Reloaded, Reloading, ReloadRejected, Subscribed
from abe_router.operations.status import load_edit_in_force
from abe_router.process.channel import FORWARDED, Alive, ControlChannel, Running, Storing
from abe_router.process.collector import CountsReporter
from abe_router.process.deadline import STORE_TIME, StopDeadline
from abe_router.process.signals import Signals
from abe_router.process.systemd import ServiceNotifier
from abe_router.routing.table import RouteTable
from abe_router.text import counted

_log = logging.getLogger("abe_router")

#: Interval at which a worker compares the files of its handlers with those that it has reported, in seconds.
CODE_EVERY = 1.0
#: Thresholds of the garbage collector, as `gc.set_threshold` takes them.
GC_THRESHOLDS = (10_000, 50, 10)
#: How long the export of spans may take at the end: at most, and after the drain time, in seconds.
FLUSH_TIME, FLUSH_GRACE = 5.0, 0.25
#: Interval at which `once` checks whether every queue is empty, in seconds.
ONCE_EVERY = 0.1
#: The files that Python buffers.
_BUFFERED = io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom


class Worker:
    """Runs a table, which `loader` has loaded, until it is stopped.

    With `once`, it ends when every queue is empty. `drain`, in seconds, replaces the drain time of every
    route. `channel` leads to the supervisor, if there is one. A worker without one tells `service` its state.
    `beside` returns what is entered before the application starts, and left after it has stopped.
    """

    def __init__(
        self,
        loader: Loader,
        table: RouteTable,
        *,
        listeners: Sequence[Subscribed] = (),
        watch: bool = True,
        once: bool = False,
        drain: float | None = None,
        channel: ControlChannel | None = None,
        service: ServiceNotifier | None = None,
        beside: Callable[[Worker], AbstractAsyncContextManager[object]] | None = None,
    ) -> None:
        self._once, self._drain, self._channel = once, drain, channel
        self._beside = beside
        self._service = service or ServiceNotifier()
        on_event = self._notify if channel is None else channel.forward
        forwarded: Subscribed = ((Reloading, *FORWARDED), on_event)
        backend = make_backend(table.backend, prefix=table.prefix)
        #: What the backend can do.
        self.features = backend.features
        self.application = Application(
            table,
            backend,
            loader=loader if watch else None,
            listeners=[*listeners, forwarded],
            number=0 if channel is None else channel.number,
        )
        #: Whether the routes run, or have run.
        self.started = False
        self._reporter: CountsReporter | None = None
        if channel is not None:
            counts = self.application.counts, self.application.process_counts
            self._reporter = CountsReporter(channel, *counts)
        self._stopping = asyncio.Event()
        self._forced_by = 0
        self._obeys_signals = False
        self._forcing: asyncio.Task[int] | None = None

    @property
    def draining(self) -> bool:
        """Whether the worker is about to end."""
        return self._stopping.is_set()

    def run_in(self, loop: asyncio.AbstractEventLoop) -> int:
        """Run in a loop that does not run yet, as `run` does.

        A handler that stops the loop, or leaves a task that raises SystemExit or KeyboardInterrupt, does not
        end the router.
        """
        running = loop.create_task(self.run())
        while True:
            try:
                return loop.run_until_complete(running)
            except (RuntimeError, SystemExit, KeyboardInterrupt) as error:
                if running.done() or loop.is_closed() or not self._obeys_signals:
                    raise
                if isinstance(error, RuntimeError):
                    _log.error("a handler has stopped the event loop: the router goes on")
                else:
                    what = type(error).__name__
                    _log.error("a task of a handler raised %s: the router goes on", what, exc_info=error)

    async def run(self) -> int:
        """Run until a signal or a command, or until all is done; return the exit code.

        0 if all running handlers finished, 1 if the drain time ended first, 128 plus the signal's number if a
        second signal forced the exit. Raise BackendError if the backend cannot be opened.
        """
        self._deadline = StopDeadline(self._longest_drain, self._report_storing)
        if self._channel is not None:
            self._channel.on_command(self._on_command, begin=self._begin_stop)
        # A signal to the whole process group reaches the supervisor too, which sends a command. That command
        # must not count as a second signal.
        force = self._force if self._channel is None else None
        with Signals(self._stopping.set, force, begin=self._begin_stop):
            self._obeys_signals = True
            try:
                async with nullcontext() if self._beside is None else self._beside(self):
                    return await self._run()
            finally:
                self._obeys_signals = False

    async def _run(self) -> int:
        application = self.application
        await application.start()
        self.started = True
        cancelled = False
        try:
            # The objects of the running routes live until the end. Without this, the garbage collector takes
            # a tenth of a busy router's time to look through them again and again, and with 1,000 routes it
            # stops the router for 80 ms at a time. With the default thresholds, the deliveries in flight of
            # many routes cause so many collections that they take a fifth.
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            gc.enable()
            if self._reporter is not None and self._channel is not None:
                channel = self._channel
                application.background.start("reporting the code", lambda: self._report_code(channel))
                application.background.start("reporting the counts", self._reporter.run)
            else:
                self._service.ready(self._state())
                application.background.start("the watchdog", self._service.ping_until_cancelled)
            if self._once:
                await self._wait_until_empty()
            else:
                await self._stopping.wait()
        except asyncio.CancelledError:
            # Nothing here cancels this task, but a handler may cancel all tasks of the loop.
            _log.error("a handler has cancelled the tasks of the router: the router stops")
            cancelled = True
            self._begin_stop()
        finally:
            abandoned = await application.stop(self._drain)
            if self._reporter is not None:
                self._reporter.finish()
            if not self._forced_by:
                await application.flush_traces(min(FLUSH_TIME, max(FLUSH_GRACE, self._deadline.left)))
            _flush_files()
        if self._forced_by:
            return 128 + self._forced_by
        return 1 if abandoned or cancelled else 0

    def _begin_stop(self) -> None:
        self._deadline.begin()
        self._service.stopping()

    def _notify(self, event: Event) -> None:
        """Tell the service manager what becomes of an edit."""
        match event:
            case Reloading():
                self._service.reloading("an edit is put into force")
            case Reloaded(number=number) if number > 1:  # the first is the start
                self._service.ready(self._state())
            case ReloadRejected():
                self._service.status(f"{self._state()}; an edit is rejected: {event.diagnostics[0].message}")

    def _state(self) -> str:
        return f"running {counted(len(self.application.table.routes), 'route')}"

    def _longest_drain(self) -> float:
        """Return how long running handlers may take to end after a stop, in seconds."""
        if self._drain is not None:
            return self._drain
        return max((route.drain for route in self.application.table.routes), default=0.0)

    def _report_storing(self) -> None:
        if self._channel is not None:
            self._channel.send(Storing(STORE_TIME))

    def _on_command(self, at_once: bool) -> None:
        if at_once:
            self._force(signal.SIGTERM)
        self._stopping.set()

    def _force(self, number: int) -> None:
        self._forced_by = number
        self._forcing = asyncio.create_task(self.application.reconciler.stop(0.0))

    async def _wait_until_empty(self) -> None:
        """Wait until no route has a message that is ready, in flight or delayed, or until stopped."""
        application = self.application
        outage = Outage()
        while not await wait_for_event(self._stopping, ONCE_EVERY):
            reconciler = application.reconciler
            names = {route.name for route in reconciler.table.routes if not reconciler.is_paused(route)}
            if any(c.in_flight for name, c in reconciler.consumers.items() if name in names):
                continue
            try:
                statuses = await application.backend.status()
            except BackendError as error:
                # The consumers may not report it, for they need other data.
                if outage.fail():
                    _log.error("cannot see whether every queue is empty, and keep trying: %s", error)
                continue
            outage.end()
            ours = [status for status in statuses if status.name in names]
            if not any(status.ready + status.in_flight + status.delayed for status in ours):
                return

    async def _report_code(self, channel: ControlChannel) -> None:
        """Report to the supervisor that all routes run, with the files of their handlers.

        Report each second that the event loop runs.
        """
        last: Running | None = None
        while True:
            if last != (now := Running(self._code(), self._longest_drain())):
                last = now
                channel.send(now)
            channel.send(Alive())
            await asyncio.sleep(CODE_EVERY)

    def _code(self) -> frozenset[Path]:
        """Return the files of the handlers, and all imported files below the folder of the routes file."""
        table = self.application.table
        return frozenset(code(table))


def load_running_edit(loader: Loader, make_loader: Callable[..., Loader]) -> RouteTable | None:
    """Return the table that the other workers run, for a worker that starts while the file has faults.

    `make_loader` makes a loader for copies of its files, which the backend keeps; it takes `backend` and
    `code_folder`. Return None if the backend does not know the table.
    """
    salvaged = loader.salvage()
    if salvaged is None:
        return None
    make = partial(make_loader, code_folder=loader.path.absolute().parent)
    found = asyncio.run(load_edit_in_force(salvaged, make_loader=make))
    if found is None:
        return None
    edit, table = found
    _log.warning("the routes file has faults: this worker runs edit %d, as the others do", edit.number)
    return table


def _flush_files() -> None:
    """Write what is in the buffers of open files, as the exit of a C program does.

    At its exit Python closes the files that the variables of a module hold, but not those of a module whose
    functions are still referred to, as those of handlers are.
    """
    gc.unfreeze()
    # By `type`, because `isinstance` may run code of an object that stands for another one.
    for each in gc.get_objects():
        if issubclass(type(each), _BUFFERED):
            with suppress(OSError, ValueError):  # a full disk, a closed pipe; a closed file
                each.flush()
    gc.freeze()  # again, or the exit of Python looks through all of them: 100 ms with 1,000 routes
