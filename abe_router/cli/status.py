"""`abe-router status`: what waits, runs and failed, and how the workers are."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from abe_router.backend import Backend, SubscriptionStatus
from abe_router.cli.access import reach, read_table_if_any
from abe_router.cli.examples import as_command
from abe_router.cli.failure import FINDINGS, OK
from abe_router.cli.options import json_option, option, reaching
from abe_router.cli.screen import say, show, show_json, show_table
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import WORKERS, WorkerReport, decode_report
from abe_router.text import counted, format_duration, printable, redact_url

_COUNTS = ("ready", "in_flight", "delayed", "dead")


class Standing(msgspec.Struct, frozen=True):
    """How one subscription stands; its counts are None when the backend has never seen it."""

    route: str
    in_file: bool
    ready: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    dead: int | None = None
    paused: bool = False

    @property
    def note(self) -> str:
        """What is odd about it."""
        seen = "" if self.ready is not None else "never seen"
        known = "" if self.in_file else "not in the file: holds its messages"
        return ", ".join(filter(None, (seen, known, "paused" if self.paused else "")))


@as_command(
    "status",
    """
    abe-router status
    abe-router status --backend redis://localhost/0 --json
    abe-router status --here
    """,
)
@reaching
@json_option
@option("--here", is_flag=True, help="Ask only whether workers of this host run and reach the backend.")
def command(routes: Path, backend: str | None, prefix: str | None, json: bool, here: bool) -> int:
    """Count what waits, runs and failed for each route, and show the workers.

    The counts come from the backend. Routes of the file that it has never seen are shown, and so are
    subscriptions that are no longer in the file: those hold their messages, which nothing removes then,
    until `abe-router drop`. With
    --backend there need be no routes file.

    With --here the exit code is 1 unless a worker has announced itself from this host, and all that did
    are connected: a probe that says when a container is ready.
    """
    table = read_table_if_any(routes, backend=backend)
    if here:
        return _probe(asyncio.run(_announced(table, prefix)))
    counts, announced = asyncio.run(_look(table, prefix))
    standings = _standings(table, counts)
    if json:
        workers = {name: _decoded(state) for name, state in announced.items()}
        values = {"backend": redact_url(table.backend), "revision": table.revision, "routes": standings}
        show_json({**values, "workers": workers})
        return OK
    rows = [
        (s.route, *("-" if (n := getattr(s, c)) is None else f"{n:,}" for c in _COUNTS), s.note)
        for s in standings
    ]
    headings = [count.replace("_", " ") for count in _COUNTS]
    if rows:
        show_table(("route", *headings, "note"), rows, right=headings)
    else:
        say("the backend knows no route")
    workers = {name: found for name, state in announced.items() if (found := decode_report(state))}
    if workers:
        show("")
        _show_workers(table, workers)
    else:
        say("no worker is running")
    return OK


async def _announced(table: RouteTable, prefix: str | None) -> Mapping[str, bytes]:
    async with reach(table, prefix=prefix, only_read=True) as backend:
        return await _reports(backend)


async def _reports(backend: Backend) -> Mapping[str, bytes]:
    entries = await backend.entries(WORKERS) if backend.features.key_value else {}
    return {name: entry.value for name, entry in sorted(entries.items())}


def _probe(announced: Mapping[str, bytes]) -> int:
    """Say how the workers of this host are, and return the exit code."""
    host = socket.gethostname()
    workers = [
        found for state in announced.values() if (found := decode_report(state)) and found.host == host
    ]
    apart = [worker for worker in workers if not all(seat.connected for seat in worker.routes.values())]
    if not workers:
        say(f"no worker runs on {host}")
    elif apart:
        all_ = counted(len(workers), "worker")
        say(f"{len(apart)} of {all_} on {host} cannot reach the backend")
    else:
        verb = "is" if len(workers) == 1 else "are"
        say(f"{counted(len(workers), 'worker')} on {host} {verb} connected")
    return OK if workers and not apart else FINDINGS


async def _look(
    table: RouteTable, prefix: str | None
) -> tuple[Sequence[SubscriptionStatus], Mapping[str, bytes]]:
    async with reach(table, prefix=prefix, only_read=True) as backend:
        return await backend.status(), await _reports(backend)


def _standings(table: RouteTable, counts: Sequence[SubscriptionStatus]) -> list[Standing]:
    """Return the routes in the order of the file, then what only the backend has."""
    found = {f"{count.pattern}/{count.group}": count for count in counts}
    names = dict.fromkeys([*table.by_name, *found])
    return [
        Standing(
            name,
            name in table.by_name,
            **({c: getattr(found[name], c) for c in _COUNTS} if name in found else {}),
            paused=name in table.by_name and table.by_name[name].paused,
        )
        for name in names
    ]


def _show_workers(table: RouteTable, workers: Mapping[str, WorkerReport]) -> None:
    now = time.time()
    rows = []
    for worker in workers.values():
        revision = worker.revision[:12]
        if table.revision not in ("", worker.revision):
            revision += " (not this file's)"
        connected = sum(seat.connected for seat in worker.routes.values())
        up = format_duration(max(0, round(now - worker.started_at)))
        in_hand = sum(seat.in_flight for seat in worker.routes.values())
        place = f"{worker.host}:{worker.pid}" + (f" [{worker.number}]" if worker.number else "")
        rows.append(
            (place, up, revision, f"{connected} of {len(worker.routes)}", f"{in_hand:,}", _reload(worker))
        )
    show_table(("worker", "up", "revision", "connected", "in hand", "last reload"), rows, right={"in hand"})
    for worker in workers.values():
        if worker.rejected:
            show(f"\n{printable(worker.host)}:{worker.pid} rejected the last edit and runs on as before:")
        for fault in worker.rejected:
            place = f"{fault.path}:{fault.line}:{fault.column}"
            show(printable(f"  {place}: {fault.severity}[{fault.code}]: {fault.message}"))


def _reload(worker: WorkerReport) -> str:
    receipt = worker.reload
    if receipt is None:
        return ""
    told = (
        (len(receipt.added), "added"),
        (len(receipt.removed), "removed"),
        (len(receipt.changed), "changed"),
    )
    did = [f"{n} {what}" for n, what in (*told, (receipt.kept, "kept")) if n]
    return f"{receipt.number}: {', '.join(did) or 'no routes'}"


def _decoded(state: bytes) -> Any:
    try:
        return msgspec.json.decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
