"""Puts the parts together and runs them: load, open, route, follow the file, stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from abe_router.backends import make_backend
from abe_router.config import Loader
from abe_router.errors import BackendError
from abe_router.event import Event, Events, Listener, Reloaded, ReloadRejected, RestartNeeded
from abe_router.handler import code_below
from abe_router.lifeline import Lifeline, Running
from abe_router.message import new_id
from abe_router.reload import Reloader, sources
from abe_router.route import RouteTable
from abe_router.router import Router

#: How often a worker announces its state to the backend, and how long its word counts, in seconds.
ANNOUNCE_EVERY, ANNOUNCE_TTL = 3.0, 10.0
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
        self._events = Events([*listeners, *up, ((Reloaded, ReloadRejected), self._note)])
        self._backend = make_backend(table.backend, prefix=table.prefix)
        #: What the backend can do.
        self.features = self._backend.features
        self._router = Router(self._backend, self._events)
        self._reloader = Reloader(loader, self._router, self._events)
        self._told_to_stop = asyncio.Event()
        self._forced_by = 0
        self._forcing: asyncio.Task[int] | None = None
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{new_id()}"
        self._started_at = time.time()
        self._receipt: Reloaded | None = None
        self._rejected: ReloadRejected | None = None
        self._news = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal, or until all is done; return the exit code.

        0 when everything in hand was finished, 1 when the drain time was over before, 128 plus the
        signal's number when a second signal forced the end. Raise BackendError when the backend cannot be
        opened.
        """
        loop = asyncio.get_running_loop()
        if self._lifeline is not None:
            self._lifeline.obey(self._on_order)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._backend.open()
            await self._router.apply(self._first)
            # What is loaded by now is here to stay. Looking through it for garbage again and again takes a
            # tenth of a busy router's time, and with 1,000 routes stops it for 80 ms at a time. What many
            # routes have in hand looks like garbage to be, and would cost a fifth.
            gc.freeze()
            gc.set_threshold(*COLLECT)
            side = [asyncio.create_task(self._announce())]
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
            with suppress(BackendError):
                await self._backend.announce(self._worker, b"", 0)
            await self._backend.close()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self._forced_by:
            return 128 + self._forced_by
        return 1 if abandoned else 0

    def _on_signal(self, number: int) -> None:
        # A signal to the whole group comes to the supervisor too, who passes it on: that is not a second one.
        if self._told_to_stop.is_set() and self._lifeline is None:
            self._force(number)
        self._told_to_stop.set()

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
            if any(consumer.in_hand for consumer in self._router.consumers.values()):
                continue
            names = {route.name for route in self._router.table.routes if not route.paused}
            try:
                counts = await self._backend.status()
            except BackendError:
                continue  # the consumers say so, and go on trying
            ours = [c for c in counts if f"{c.pattern}/{c.group}" in names]
            if not any(c.ready + c.in_flight + c.delayed for c in ours):
                return

    def _note(self, event: Event) -> None:
        if isinstance(event, Reloaded):
            self._receipt, self._rejected = event, None
        elif isinstance(event, ReloadRejected):
            self._rejected = event
        self._news.set()

    async def _announce(self) -> None:
        """Tell the backend every few seconds how this worker is, and at once after a reload."""
        code: frozenset[Path] | None = None
        while True:
            self._news.clear()
            if self._lifeline is not None and code != (now := self._code()):
                code = now
                self._lifeline.say(Running(code))
            with suppress(BackendError):
                await self._backend.announce(self._worker, self._state(), ANNOUNCE_TTL)
            with suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_EVERY):
                    await self._news.wait()

    def _code(self) -> frozenset[Path]:
        """Return the files of the handlers, and of all that is imported from below the file's folder."""
        table = self._router.table
        return frozenset(sources(table) | (code_below(table.path.parent) if table.path else set()))

    def _state(self) -> bytes:
        table, receipt, rejected = self._router.table, self._receipt, self._rejected
        consumers = self._router.consumers
        return msgspec.json.encode(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "number": self._lifeline.number if self._lifeline else 0,
                "started_at": self._started_at,
                "table": table.digest,
                "path": str(table.path) if table.path else None,
                "routes": {
                    name: {"in_hand": c.in_hand, "connected": c.connected} for name, c in consumers.items()
                },
                "receipt": receipt,
                "rejected": [d.to_json() for d in rejected.diagnostics] if rejected else [],
            }
        )
