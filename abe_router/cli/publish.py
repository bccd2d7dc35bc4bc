"""`abe-router publish`: one message from the command line, or many from a stream of lines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from abe_router.cli.access import open_to_publish, read_table_in_force
from abe_router.cli.errors import OK, UNAVAILABLE, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_option, config_option, headers_option, json_option, option
from abe_router.cli.output import print_data, print_json, print_message
from abe_router.cli.payload import read_payload
from abe_router.errors import BackendUnavailable, PublishTimeout
from abe_router.messages.message import Message
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import append, prepare, window
from abe_router.text import format_duration, printable


@as_command(
    "publish",
    """
    abe-router publish orders.created '{"id": 7, "total": 250}'
    abe-router publish orders.created @order.json --header source=shop
    curl -s https://example.com/order | abe-router publish orders.created
    abe-router publish --ndjson events.ndjson
    abe-router publish orders.created --ndjson orders.ndjson --json 2> rejected.ndjson
    """,
)
@click.argument("key", required=False)
@click.argument("payload", required=False, metavar="[JSON|@FILE|-]")
@config_option
@backend_option
@option("--ndjson", metavar="FILE", help="Publish each line of FILE; - is stdin.")
@headers_option
@option(
    "--id", metavar="TEXT", help="Id of the message; by default from the key's `id` option, or a new one."
)
@option("--allow-unrouted", is_flag=True, help="Accept keys that the routes file does not name.")
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Longest time to publish a message or a batch; by default that of the backend's URL, or 5.",
)
@json_option
def command(
    key: str | None,
    payload: str | None,
    routes: Path,
    backend: str | None,
    ndjson: str | None,
    headers: Mapping[str, str],
    id: str | None,
    allow_unrouted: bool,
    timeout: float | None,
    json: bool,
) -> int:
    """Check payloads against their schema and publish them.

    Without a payload argument the payload is read from stdin. While the file has faults, the last accepted
    edit counts. Prints the id of the message. If the key has
    `dedupe`, a message whose id was published within that time is a duplicate: it is not published again,
    and that is not an error.

    With --ndjson and no KEY, each line is {"key": ..., "payload": ...} and may have "headers" and "id". With
    KEY, each line is a payload of that key. Lines are published in order. A rejected line is reported with
    its number, and the other lines are published; the exit code is then 1.
    """
    if ndjson is not None and (payload is not None or id is not None):
        raise click.UsageError("--ndjson reads payloads and ids from the lines: give neither JSON nor --id")
    if ndjson is None and key is None:
        raise click.UsageError("give a KEY and its payload, or --ndjson FILE")
    if ndjson is None and payload is None and sys.stdin.isatty():
        raise click.UsageError("give the payload as JSON, as @FILE, or on stdin")
    table, error = read_table_in_force(routes, backend=backend, ask=True)
    if error is not None and not table.revision:
        raise error
    if ndjson is not None:
        from abe_router.cli.publish_lines import publish_lines

        return publish_lines(
            table, ndjson, key, headers=headers, allow_unrouted=allow_unrouted, timeout=timeout, json=json
        )
    assert key is not None
    body = read_payload("-" if payload is None else payload)
    message = prepare(table, key, body, headers=headers, id=id, allow_unrouted=allow_unrouted)
    seconds = window(table, message.key, id)
    is_duplicate = asyncio.run(_append(table, message, seconds, timeout))
    if json:
        print_json({"id": message.id, "key": message.key, "duplicate": is_duplicate})
        return OK
    if is_duplicate:
        ago = format_duration(seconds)
        print_message(f"duplicate: a message with this id was published less than {ago} ago")
    print_data(printable(message.id))
    return OK


async def _append(table: RouteTable, message: Message, seconds: float, timeout: float | None) -> bool:
    """Append a message whose id is remembered for `seconds`; return whether it was a duplicate."""
    async with open_to_publish(table, timeout) as (backend, left):
        try:
            return bool(await append(backend, [(message, seconds)], left))
        except BackendUnavailable as error:
            if isinstance(error, PublishTimeout) and not error.sent:
                raise
            again = f"publish it again with --id {message.id}"
            if seconds:
                hint = f"{again}; within {format_duration(seconds)} that creates no duplicate"
            else:
                hint = f"{again} to be sure; it may then arrive twice"
            raise CommandError(
                f"{error}; it is unknown whether message {message.id} was published",
                hint=hint,
                code=UNAVAILABLE,
            ) from error
