"""`abe-router publish`: one message from the command line, or many from a stream of lines."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from abe_router.cli.access import reach, read_table
from abe_router.cli.bulk import publish_lines
from abe_router.cli.examples import as_command
from abe_router.cli.failure import OK, UNAVAILABLE, Failure
from abe_router.cli.options import backend_option, config_option, headers_option, json_option, option
from abe_router.cli.payload import read_payload
from abe_router.cli.screen import say, show, show_json
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import Message
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import append, prepare, window
from abe_router.text import format_duration, printable


@as_command(
    "publish",
    """
    abe-router publish orders.created '{"total": 120}'
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
@option("--ndjson", metavar="FILE", help="Publish each line of FILE, or of stdin if it is -.")
@headers_option
@option("--id", metavar="TEXT", help="The message's id, else that which the file says, or a new one.")
@option("--allow-unrouted", is_flag=True, help="Accept keys that the routes file does not know.")
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
    json: bool,
) -> int:
    """Check payloads against their schema and publish them.

    Without a payload it is read from stdin. Prints the message's id. A key's `dedupe` keeps it from being
    doubled: what was published with the same id in that time is not published again, which is no error.

    With --ndjson and no KEY, a line is {"key": ..., "payload": ...}, and may have "headers" and "id";
    with KEY, each line is a payload for it. Lines are published in their order. A rejected line is
    reported with its number and the others go on; the exit code is then 1.
    """
    if ndjson is not None and (payload is not None or id is not None):
        raise click.UsageError("--ndjson brings the payloads and their ids: give neither JSON nor --id")
    if ndjson is None and key is None:
        raise click.UsageError("give a KEY and its payload, or --ndjson FILE")
    if ndjson is None and payload is None and sys.stdin.isatty():
        raise click.UsageError("give the payload as JSON, as @FILE, or through stdin")
    table = read_table(routes, backend=backend)
    if ndjson is not None:
        return publish_lines(table, ndjson, key, headers=headers, allow_unrouted=allow_unrouted, json=json)
    assert key is not None
    body = read_payload("-" if payload is None else payload)
    message = prepare(table, key, body, headers=headers, id=id, allow_unrouted=allow_unrouted)
    seconds = window(table, message.key, id)
    is_duplicate = asyncio.run(_append(table, message, seconds))
    if json:
        show_json({"id": message.id, "key": message.key, "duplicate": is_duplicate})
        return OK
    if is_duplicate:
        say(f"duplicate: a message of this id was published less than {format_duration(seconds)} ago")
    show(printable(message.id))
    return OK


async def _append(table: RouteTable, message: Message, seconds: float) -> bool:
    """Append a message whose id is remembered for so many seconds; say whether there was one already."""
    async with reach(table) as backend:
        try:
            return bool(await append(backend, [(message, seconds)]))
        except BackendUnavailable as error:
            again = f"publish it again with --id {message.id} to be sure; "
            arrives = (
                f"within {format_duration(seconds)} it arrives once"
                if seconds
                else "it may then arrive twice"
            )
            raise Failure(
                f"{error}; whether message {message.id} was published is unknown",
                hint=again + arrives,
                code=UNAVAILABLE,
            ) from error
