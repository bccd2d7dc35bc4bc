"""`abe-router tap`: messages as they are accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click
import msgspec

from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import INTERRUPTED, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, option, parse_duration_option
from abe_router.cli.output import print_data, print_message
from abe_router.operations.tail import SAMPLE, Tailed, parse_filter, tail
from abe_router.routing.table import RouteTable
from abe_router.text import counted, printable


def _parse_where(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> dict[str, Any]:
    try:
        return dict(map(parse_filter, given))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@as_command(
    "tap",
    """
    abe-router tap 'orders.#'
    abe-router tap orders.created --where /customer=ada --limit 10
    abe-router tap orders.created --group billing --start earliest
    abe-router tap '#' --for 1m --json > messages.ndjson
    """,
)
@click.argument("pattern")
@backend_options
@option("--group", metavar="GROUP", help="Show the messages that PATTERN/GROUP has not settled.")
@option(
    "--start",
    type=click.Choice(["earliest", "latest"]),
    default="latest",
    help="Begin with the oldest stored message, or with the next one.",
)
@option(
    "--where",
    multiple=True,
    metavar="POINTER=JSON",
    callback=_parse_where,
    help="Show only messages with this value in the payload; can be repeated.",
)
@option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=parse_duration_option,
    help="Stop after this time, such as 30s.",
)
@option(
    "--sample",
    type=click.FloatRange(min=0, min_open=True),
    default=SAMPLE,
    metavar="N",
    help="Show at most about N messages a second.",
)
@option("--json", is_flag=True, help="Print one JSON object per line.")
def command(
    pattern: str,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    group: str | None,
    start: str,
    where: Mapping[str, Any],
    limit: int | None,
    seconds: float | None,
    sample: float,
    json: bool,
) -> int:
    """Show messages as they are accepted, sampled and masked.

    PATTERN is a key or a pattern, such as 'orders.#'. It only looks: no message is taken, moved or counted.
    Values that a schema marks as `x-sensitive` are masked, and without a routes file all payloads are. Of
    more messages than --sample a second, it shows a random part, and says how many it left out. A message
    that all its groups have handled, and that is removed before it is seen, is not shown; `retain` of the
    key keeps messages longer.
    """
    table, _ = read_table_in_force(routes, backend=backend, prefix=prefix)
    tap = _Tap(json=json, limit=limit)
    after = "" if start == "earliest" else None
    try:
        asyncio.run(
            tap.run(table, prefix, pattern, seconds, group=group, after=after, sample=sample, where=where)
        )
    except KeyboardInterrupt:
        tap.report()
        return INTERRUPTED
    tap.report()
    return OK


class _Tap:
    """Prints the messages of a tail, and counts them."""

    def __init__(self, *, json: bool, limit: int | None) -> None:
        self._json, self._limit = json, limit
        self._shown = self._omitted = 0
        self._fell_behind = False

    async def run(
        self, table: RouteTable, prefix: str | None, pattern: str, seconds: float | None, **options: Any
    ) -> None:
        """Print until the limit or the time is reached."""
        async with open_backend(table, prefix=prefix, only_read=True) as backend:
            try:
                async with (
                    asyncio.timeout(seconds),
                    aclosing(tail(backend, table, pattern, **options)) as tailing,
                ):
                    async for tailed in tailing:
                        self._print(tailed)
                        if self._shown == self._limit:
                            return
            except TimeoutError:
                return

    def report(self) -> None:
        """Say how many messages were shown, and how many were not."""
        said = f"{counted(self._shown, 'message')} shown"
        if self._omitted:
            said += f", {self._omitted:,} left out"
        if self._fell_behind:
            said += ", and others were not read: there were too many"
        print_message(said)

    def _print(self, tailed: Tailed) -> None:
        self._shown += 1
        self._omitted += tailed.omitted
        self._fell_behind = self._fell_behind or tailed.skipped
        print_data(msgspec.json.encode(tailed).decode() if self._json else _line(tailed))


def _line(tailed: Tailed) -> str:
    """Return a message as one line: time, key, id, its state in a group, payload."""
    clock = time.strftime("%H:%M:%S", time.localtime(tailed.published_at))
    state = ""
    if tailed.state != "retained":
        state = f"  {tailed.state.replace('_', ' ')}, delivered {counted(tailed.deliveries, 'time')}"
    payload = tailed.payload
    shown = payload if isinstance(payload, str) else msgspec.json.encode(payload).decode()
    return printable(f"{clock}  {tailed.key}  {tailed.id}{state}  {shown}")
