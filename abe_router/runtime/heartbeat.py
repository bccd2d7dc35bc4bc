"""What a running router says of itself, where `status` and others on its backend find it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from abe_router.backend import Backend, SubscriptionStatus
from abe_router.diagnostic import Diagnostic
from abe_router.errors import BackendError
from abe_router.messages.message import new_id
from abe_router.observe.events import Event, Events, OrphanedSubscription, Reloaded, ReloadRejected
from abe_router.runtime.reconciler import Reconciler

#: How often a router says how it is, and how long its word counts, in seconds.
EVERY, TTL = 3.0, 10.0


class Seat(msgspec.Struct, frozen=True):
    """What a worker says of one of its routes."""

    in_hand: int = 0
    connected: bool = True


class Receipt(msgspec.Struct, frozen=True):
    """What a worker says of its last reload; `seconds` is how long that took."""

    number: int = 0
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: int = 0
    seconds: float = 0.0


class Fault(msgspec.Struct, frozen=True):
    """One fault in an edit that a worker rejected."""

    path: str
    line: int
    column: int
    code: str
    message: str
    severity: str = "error"


class Worker(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    `started_at` is in seconds since the epoch, `revision` that of the table in force, `number` the one
    that its supervisor gave it, and 0 without.
    """

    host: str
    pid: int
    started_at: float
    revision: str
    number: int = 0
    path: str | None = None
    routes: Mapping[str, Seat] = {}
    receipt: Receipt | None = None
    rejected: tuple[Fault, ...] = ()


def decode_worker(state: bytes) -> Worker | None:
    """Return what a worker announced, or None when it speaks another version's language."""
    try:
        return msgspec.json.decode(state, type=Worker)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Heartbeat:
    """Announces a router to its backend, and tells of what nobody serves there.

    `number` is the one that the supervisor gave this worker; the others leave the telling to the first.
    """

    #: The events that `hear` is to be given.
    KINDS = (Reloaded, ReloadRejected)

    def __init__(self, backend: Backend, *, number: int = 0) -> None:
        self._backend, self._number = backend, number
        self._name = f"{socket.gethostname()}-{os.getpid()}-{new_id()}"
        self._started_at = time.time()
        self._receipt: Receipt | None = None
        self._news = asyncio.Event()
        self._told: set[str] = set()

    def hear(self, event: Event) -> None:
        """Take in what came of an edit; of two under way at once the later counts, whichever ends last."""
        if isinstance(event, Reloaded) and (self._receipt is None or event.number > self._receipt.number):
            self._receipt = msgspec.convert(event, Receipt, from_attributes=True)
        self._news.set()

    async def run(
        self, router: Reconciler, events: Events, rejected: Callable[[], Sequence[Diagnostic]] = tuple
    ) -> None:
        """Announce every few seconds how the router is, and at once what came of an edit, until cancelled.

        `rejected` returns the faults of the last edit.
        """
        looks = self._number < 2
        while True:
            self._news.clear()
            with suppress(BackendError):
                await self._backend.announce(self._name, self._word(router, rejected()), TTL)
            try:
                async with asyncio.timeout(EVERY):
                    await self._news.wait()
                looks = self._number < 2
            except TimeoutError:
                # By now the others on the backend have said what they serve.
                if looks:
                    with suppress(BackendError):
                        await self._tell_of_left_behind(router, events)
                        looks = False

    async def leave(self) -> None:
        """Withdraw what was announced."""
        with suppress(BackendError):
            await self._backend.announce(self._name, b"", 0)

    def _word(self, router: Reconciler, rejected: Sequence[Diagnostic]) -> bytes:
        seats = {name: Seat(c.in_flight, c.connected) for name, c in router.consumers.items()}
        return msgspec.json.encode(
            Worker(
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=self._started_at,
                revision=router.table.revision,
                number=self._number,
                path=_sayable(str(router.table.path)) if router.table.path else None,
                routes=seats,
                receipt=self._receipt,
                rejected=tuple(
                    Fault(_sayable(str(f.path)), f.line, f.column, f.code, _sayable(f.message), f.severity)
                    for f in rejected
                ),
            )
        )

    async def _tell_of_left_behind(self, router: Reconciler, events: Events) -> None:
        statuses, words = await self._backend.status(), await self._backend.announcements()
        workers = [worker for word in words.values() if (worker := decode_worker(word))]
        left = dict(_left_behind(statuses, {*router.table.by_name, *(n for w in workers for n in w.routes)}))
        for route in left.keys() - self._told:
            events.emit(OrphanedSubscription(route, left[route]))
        self._told = set(left)


def _sayable(text: str) -> str:
    """Return a text with all that JSON cannot carry escaped: names of files need not be UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _left_behind(statuses: Sequence[SubscriptionStatus], served: set[str]) -> Iterator[tuple[str, int]]:
    """Yield each subscription that nobody serves, and how many messages it holds."""
    for status in statuses:
        name = f"{status.pattern}/{status.group}"
        if name not in served:
            yield name, status.ready + status.in_flight + status.delayed
