"""`abe-router status`: the message counts of each route, and the workers."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import msgspec

from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import FINDINGS, INTERRUPTED, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option
from abe_router.cli.output import print_data, print_json, print_message, print_table
from abe_router.errors import BackendUnavailable
from abe_router.operations.status import HostReadiness, Status, check_host, read_status
from abe_router.operations.subscriptions import SubscriptionState, not_in_file
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import ServedRoutes, WorkerReport
from abe_router.text import counted, format_age, mask_credentials, printable

#: The time between two rounds of `--watch`, in seconds.
WATCH_EVERY = 2.0


@as_command(
    "status",
    """
    abe-router status
    abe-router status --backend redis://localhost/0 --json
    abe-router status --watch 5
    abe-router status --here
    """,
)
@backend_options
@json_option
@option(
    "--watch",
    is_flag=False,
    flag_value=WATCH_EVERY,
    type=click.FloatRange(min=0.2),
    metavar="[SECONDS]",
    help=f"Show it again every {WATCH_EVERY:g} seconds, or SECONDS; with --json one object per line.",
)
@option("--here", is_flag=True, help="Only check that workers of this host run and reach the backend.")
def command(
    routes: Path, backend: str | None, prefix: str | None, json: bool, watch: float | None, here: bool
) -> int:
    """Show the message counts of each route, and the workers.

    The counts come from the backend. The list has the routes of the file, also those the backend has never
    seen, and subscriptions that are no longer in the file. The latter keep their messages until
    `abe-router drop`. While the file has faults, the last accepted edit counts. `oldest` is the age of the
    oldest message that is ready. With --backend no routes file is needed.

    With --here the exit code is 1 unless a worker of this host has reported to the backend and all that have
    are connected. Use it as a readiness probe of a container.
    """
    if watch is not None and here:
        raise click.UsageError("--here checks once: leave out --watch")

    def show() -> int:
        table, _ = read_table_in_force(routes, backend=backend, prefix=prefix)
        if here:
            return _report_host(asyncio.run(_read_host(table, prefix)))
        _print(table, asyncio.run(_read(table, prefix)), json=json, in_lines=watch is not None)
        return OK

    return show() if watch is None else _repeat(show, watch)


def _repeat(show: Callable[[], int], seconds: float) -> int:
    """Show the status until Ctrl-C, on a terminal in place of the one before; an outage does not end it."""
    clear = sys.stdout.isatty() and os.environ.get("TERM") not in (None, "dumb")
    try:
        while True:
            if clear:
                click.echo("\033[H\033[2J", nl=False, color=True)
            try:
                show()
            except BackendUnavailable as error:
                print_message(f"error: {printable(mask_credentials(str(error)))}")
            time.sleep(seconds)
    except KeyboardInterrupt:
        return INTERRUPTED


def _print(table: RouteTable, status: Status, *, json: bool, in_lines: bool) -> None:
    if status.edit is not None:
        print_message(f"warning: the workers rejected {table.path}; edit {status.edit} counts")
    if json and in_lines:
        print_data(msgspec.json.encode(status).decode())
        return
    if json:
        print_json(status)
        return
    if status.node:
        print_message(f"served by {status.node}")
    now = time.time()
    if status.routes:
        headings = ("ready", "in flight", "delayed", "dead", "oldest")
        served = status.served
        rows = [_route_row(state, served, now) for state in status.routes]
        print_table(("route", *headings, "note"), rows, right=headings)
    else:
        print_message("the backend has no routes")
    workers = {name: worker for name, worker in status.workers.items() if worker}
    if workers:
        print_data("")
        _print_workers(table, workers, now)
    else:
        print_message("no worker is running")


async def _read(table: RouteTable, prefix: str | None) -> Status:
    async with open_backend(table, prefix=prefix, only_read=True) as backend:
        return await read_status(table, backend)


async def _read_host(table: RouteTable, prefix: str | None) -> HostReadiness:
    async with open_backend(table, prefix=prefix, only_read=True) as backend:
        return await check_host(backend, socket.gethostname())


def _report_host(found: HostReadiness) -> int:
    """Report the workers of this host and return the exit code."""
    workers = counted(found.workers, "worker")
    if not found.workers:
        print_message(f"no worker is running on {found.host}")
    elif found.disconnected:
        print_message(f"{found.disconnected} of {workers} on {found.host} cannot reach the backend")
    else:
        verb = "is" if found.workers == 1 else "are"
        print_message(f"{workers} on {found.host} {verb} connected")
    return OK if found.ready else FINDINGS


def _route_row(state: SubscriptionState, served: ServedRoutes, now: float) -> tuple[str, ...]:
    counts = (state.ready, state.in_flight, state.delayed, state.dead)
    oldest = "-" if state.oldest_at is None else format_age(now - state.oldest_at)
    return (state.route, *("-" if n is None else f"{n:,}" for n in counts), oldest, _note(state, served))


def _note(state: SubscriptionState, served: ServedRoutes) -> str:
    stays = "" if state.route in served.routes else ", keeps its messages"
    notes = (
        "" if state.seen else "never seen",
        f"{not_in_file(state.route, served)}{stays}" if state.in_file is False else "",
        "paused" if state.paused else "",
        *(override.describe() for override in state.overrides),
    )
    return ", ".join(filter(None, notes))


def _print_workers(table: RouteTable, workers: Mapping[str, WorkerReport], now: float) -> None:
    rows = []
    for worker in workers.values():
        revision = worker.revision[:12]
        if table.revision not in ("", worker.revision):
            revision += " (differs from the file)"
        connected = sum(route.connected for route in worker.routes.values())
        up = format_age(now - worker.started_at)
        in_flight = sum(route.in_flight for route in worker.routes.values())
        address = f"{worker.host}:{worker.pid}" + (f" [{worker.number}]" if worker.number else "")
        connections = f"{connected} of {len(worker.routes)}"
        rows.append((address, up, revision, connections, f"{in_flight:,}", _last_reload(worker)))
    headings = ("worker", "up", "revision", "connected", "in flight", "last reload")
    print_table(headings, rows, right={"in flight"})
    if warnings := max(worker.warnings for worker in workers.values()):
        print_data(
            f"\nthe routes that run have {counted(warnings, 'warning')}: `abe-router check` shows them"
        )
    for worker in workers.values():
        if worker.rejected:
            print_data(
                f"\n{printable(worker.host)}:{worker.pid} rejected the last edit and keeps its routes:"
            )
        for fault in worker.rejected:
            where = f"{fault.path}:{fault.line}:{fault.column}"
            print_data(printable(f"  {where}: {fault.severity}[{fault.code}]: {fault.message}"))
        for path in worker.outdated:
            print_data(f"\n{printable(worker.host)}:{worker.pid} runs older code than {printable(path)} has:")
            print_data("  restart it, or read in its log why the new code does not run")


def _last_reload(worker: WorkerReport) -> str:
    reload = worker.reload
    if reload is None:
        return ""
    counts = {
        "added": len(reload.added),
        "removed": len(reload.removed),
        "changed": len(reload.changed),
        "kept": reload.kept,
    }
    return f"{reload.number}: {', '.join(f'{n} {what}' for what, n in counts.items() if n) or 'no routes'}"
