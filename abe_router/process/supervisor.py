"""Runs several workers of one file, and answers for them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from abe_router.diagnostic import Diagnostic
from abe_router.errors import ConfigError
from abe_router.files.watch import Fingerprint, Watch, fingerprint
from abe_router.observe.events import ReloadRejected, RestartNeeded
from abe_router.observe.logs import log_event
from abe_router.process.channel import FORCE, STOP, Accepted, Outdated, Rejected, Running, Word
from abe_router.process.child import Child, Command
from abe_router.process.slot import Place

_log = logging.getLogger("abe_router")

#: How long workers that are told to exit at once may take, in seconds; then they are killed.
LAST_WORDS = 2.0
#: How far apart workers may say the same of the file, in seconds.
CHORUS = 5.0


class Supervisor:
    """Keeps `workers` worker processes running; `command` makes the command line of each.

    The workers share the groups of the backend, and each follows the file. One that ends is replaced, after
    pauses that grow up to half a minute, and never given up. With `once` the workers end by themselves, and
    so does this. With `reload_handlers` a change of handler code replaces the workers, one after the other.
    """

    def __init__(
        self, command: Command, workers: int, *, once: bool = False, reload_handlers: bool = False
    ) -> None:
        self._command, self._reloads = command, reload_handlers
        self._stopping = asyncio.Event()
        self._signals: list[int] = []
        self._forcing: asyncio.Task[None] | None = None
        self._children: set[Child] = set()
        self._places = [
            Place(partial(self._start, number), self._stopping, once=once) for number in range(1, workers + 1)
        ]
        self._is_up = False
        self._watch = Watch(self._code)
        self._faults: tuple[Diagnostic, ...] = ()
        self._told: dict[Outdated, float] = {}

    async def run(self) -> int:
        """Run until a signal, or until the workers are done; return the exit code.

        The first worker is started alone: when it cannot run, nothing does. Then its exit code is returned,
        or ConfigError raised when the file has faults. Otherwise the code is 0 when all workers that ran then
        ended well, 1 when one did not, and 128 plus the signal's number when a second signal forced the end.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            first = await self._places[0].fill()
            if first is None:
                return 0
            await first.settled.wait()
            if not first.has_run:
                if first.faults:
                    raise ConfigError(first.faults)
                code = await first.ended()
                return code if code >= 0 else 128 - code
            self._is_up = True
            following = asyncio.create_task(self._follow_code())
            codes = await asyncio.gather(*(place.keep() for place in self._places))
            self._watch.stop()
            await following
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return 1 if any(codes) else 0

    async def _start(self, number: int) -> Child:
        child = await Child.start(number, self._command, self._hear)
        self._children = {child, *(other for other in self._children if not other.is_over)}
        if self._stopping.is_set():
            child.order(STOP)
        return child

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        self._stopping.set()
        if len(self._signals) == 1:
            self._order(STOP)
        elif self._forcing is None:
            self._forcing = asyncio.create_task(self._force())

    async def _force(self) -> None:
        self._order(FORCE)
        await asyncio.sleep(LAST_WORDS)
        for child in self._children:
            child.kill()

    def _order(self, order: bytes) -> None:
        for child in self._children:
            child.order(order)

    def _hear(self, child: Child, word: Word) -> None:
        """Tell once what all workers say of the file."""
        match word:
            case Running() if not child.has_run:
                _log.info("%s runs", child)
            case Accepted():
                self._faults = ()
            case Rejected() if self._is_up:
                if word.diagnostics != self._faults:
                    self._faults = word.diagnostics
                    log_event(ReloadRejected(word.diagnostics))
            case Outdated() if not (self._reloads and word.what == "handler code"):
                now = time.monotonic()
                if now > self._told.get(word, -CHORUS) + CHORUS:
                    self._told[word] = now
                    log_event(RestartNeeded(word.what, word.path))

    def _code(self) -> Iterable[Path]:
        return frozenset().union(*(place.code for place in self._places))

    async def _follow_code(self) -> None:
        """Replace the workers whenever a file of their handlers has changed."""
        if not self._reloads:
            return
        seen: Fingerprint = {}
        async for _ in self._watch.signs():
            now = fingerprint(self._code())
            # A file that is not there is one that is being saved, or one that is no longer imported.
            found = {path: state for path, state in now.items() if state is not None}
            changed = [path for path, state in found.items() if seen.get(path, state) != state]
            changed += [path for path in found if path not in seen and self._is_newer(path, found[path][2])]
            seen |= found
            if changed and not self._stopping.is_set():
                await self._replace_all(changed)

    def _is_newer(self, path: Path, modified: int) -> bool:
        """Say whether a file was modified, in nanoseconds since the epoch, since a worker of it started."""
        return any(modified > child.started_at * 1e9 for child in self._children if path in child.code)

    async def _replace_all(self, changed: Iterable[Path]) -> None:
        self._faults = ()
        _log.info("handler code changed: %s", ", ".join(sorted(path.name for path in changed)))
        for place in self._places:
            if self._stopping.is_set() or not await place.replace():
                return
        _log.info("all workers run the new code")
