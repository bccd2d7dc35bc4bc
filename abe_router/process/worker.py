"""Puts the parts together and runs them: load, open, route, follow the file, stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Sequence
from pathlib import Path

from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.edits.reload import Reloader, sources
from abe_router.errors import BackendError
from abe_router.observe.events import Event, Events, Listener, Reloaded, ReloadRejected, RestartNeeded
from abe_router.process.channel import Lifeline, Running
from abe_router.process.signals import Signals
from abe_router.routing.handler import code_below
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import Heartbeat
from abe_router.runtime.reconciler import Reconciler

#: How often a worker looks whether its handlers are made of other files than it told, in seconds.
CODE_EVERY = 1.0
#: How many new objects there are between looks for garbage among the young ones, and how many such looks
#: between those among older ones.
COLLECT = (10_000, 50, 10)
#: How often `once` looks whether every queue is empty, in seconds.
LOOK_EVERY = 0.1


class App:
    """One worker process: a router, the file it follows, and the signals that stop it.

    `table` is the table to begin with, as `loader` gave it. With `once` it ends when every queue is empty.
    `drain`, in seconds, overrides the drain time of every route. `lifeline` leads to the supervisor, if
    there is one.
    """

    def __init__(
        self,
        loader: Loader,
        table: RouteTable,
        *,
        listeners: Sequence[tuple[tuple[type[Event], ...], Listener]] = (),
        watch: bool = True,
        once: bool = False,
        drain: float | None = None,
        lifeline: Lifeline | None = None,
    ) -> None:
        self._loader, self._first = loader, table
        self._watch, self._once, self._drain = watch, once, drain
        self._lifeline = lifeline
        up = [] if lifeline is None else [((Reloaded, ReloadRejected, RestartNeeded), lifeline.hear)]
        self._backend = make_backend(table.backend, prefix=table.prefix)
        self._presence = Heartbeat(self._backend, number=lifeline.number if lifeline else 0)
        self._events = Events([*listeners, *up, (Heartbeat.KINDS, self._presence.hear)])
        #: What the backend can do.
        self.features = self._backend.features
        self._router = Reconciler(self._backend, self._events)
        self._reloader = Reloader(loader, self._router, self._events)
        self._told_to_stop = asyncio.Event()
        self._forced_by = 0
        self._forcing: asyncio.Task[int] | None = None

    async def run(self) -> int:
        """Run until a signal, or until all is done; return the exit code.

        0 when everything in hand was finished, 1 when the drain time was over before, 128 plus the
        signal's number when a second signal forced the end. Raise BackendError when the backend cannot be
        opened.
        """
        if self._lifeline is not None:
            self._lifeline.obey(self._on_order)
        # A signal to the whole group comes to the supervisor too, who passes it on: that is no second one.
        force = self._force if self._lifeline is None else None
        with Signals(self._told_to_stop.set, force):
            return await self._run()

    async def _run(self) -> int:
        try:
            await self._backend.open()
            await self._router.apply(self._first)
            # What is loaded by now is here to stay. Looking through it for garbage again and again takes a
            # tenth of a busy router's time, and with 1,000 routes stops it for 80 ms at a time. What many
            # routes have in hand looks like garbage to be, and would cost a fifth.
            gc.freeze()
            gc.set_threshold(*COLLECT)
            side = [
                asyncio.create_task(
                    self._presence.run(self._router, self._events, lambda: self._reloader.rejected)
                )
            ]
            if self._lifeline is not None:
                side.append(asyncio.create_task(self._tell_of_code(self._lifeline)))
            if self._watch:
                side.append(asyncio.create_task(self._reloader.run()))
            done = asyncio.create_task(self._empty() if self._once else self._told_to_stop.wait())
            stopped = asyncio.create_task(self._told_to_stop.wait())
            await asyncio.wait({done, stopped, *side}, return_when=asyncio.FIRST_COMPLETED)
            abandoned = await self._stop()
            for task in (done, stopped, *side):
                task.cancel()
            for result in await asyncio.gather(done, stopped, *side, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        finally:
            await self._presence.leave()
            await self._backend.close()
        if self._forced_by:
            return 128 + self._forced_by
        return 1 if abandoned else 0

    def _on_order(self, at_once: bool) -> None:
        if at_once:
            self._force(signal.SIGTERM)
        self._told_to_stop.set()

    def _force(self, number: int) -> None:
        self._forced_by = number
        self._forcing = asyncio.create_task(self._router.stop(0.0))

    async def _stop(self) -> int:
        self._reloader.stop()
        return await self._router.stop(self._drain)

    async def _empty(self) -> None:
        """Wait until no route of the table has anything waiting, running or delayed."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if any(consumer.in_flight for consumer in self._router.consumers.values()):
                continue
            names = {route.name for route in self._router.table.routes if not route.paused}
            try:
                counts = await self._backend.status()
            except BackendError:
                continue  # the consumers say so, and go on trying
            ours = [c for c in counts if f"{c.pattern}/{c.group}" in names]
            if not any(c.ready + c.in_flight + c.delayed for c in ours):
                return

    async def _tell_of_code(self, lifeline: Lifeline) -> None:
        """Tell the supervisor that all routes run, and of which files their handlers are made."""
        code: frozenset[Path] | None = None
        while True:
            if code != (now := self._code()):
                code = now
                lifeline.say(Running(code))
            await asyncio.sleep(CODE_EVERY)

    def _code(self) -> frozenset[Path]:
        """Return the files of the handlers, and of all that is imported from below the file's folder."""
        table = self._router.table
        return frozenset(sources(table) | (code_below(table.path.parent) if table.path else set()))
