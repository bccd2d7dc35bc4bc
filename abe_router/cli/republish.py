"""`abe-router dead republish`: change a dead letter and publish it as a new message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from abe_router.backend import Backend
from abe_router.cli.dead_options import Route, run_on_backend, why_option
from abe_router.cli.errors import FINDINGS, OK, UNAVAILABLE, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, headers_option, json_option, option, route_argument
from abe_router.cli.output import print_data, print_json, print_message
from abe_router.cli.payload import read_payload
from abe_router.errors import BackendUnavailable
from abe_router.operations.audit import local_author
from abe_router.operations.dead_letters import find_dead_letter
from abe_router.operations.republish import (
    RepublishDraft,
    Republished,
    draft_of,
    prepare_republication,
    republish,
)
from abe_router.routing.table import RouteTable
from abe_router.text import printable


@as_command(
    "republish",
    """
    abe-router dead republish orders.created/billing 17 --draft > order.json
    abe-router dead republish orders.created/billing 17 @order.json --purge --why 'wrong total'
    """,
)
@route_argument()
@click.argument("id", metavar="ID")
@click.argument("payload", required=False, metavar="[JSON|@FILE|-]")
@option("--draft", is_flag=True, help="Print the payload to change, and publish nothing.")
@headers_option
@option("--purge", is_flag=True, help="Delete the dead letter once the message is accepted.")
@why_option
@backend_options
@json_option
def command(
    route: Route,
    id: str,
    payload: str | None,
    draft: bool,
    headers: Mapping[str, str],
    purge: bool,
    why: str,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """Change a dead letter, and publish it as a new message to every group of its key.

    The draft has references such as `(masked /card)` in place of values that a schema marks as `x-sensitive`.
    In the changed payload they stand for these values. Headers are kept; --header replaces one. The new
    message is published once, also if the command is repeated. The exit code is 1 if the dead letter should
    be purged and could not be.
    """
    if draft == (payload is not None or bool(headers)):
        raise click.UsageError("give either --draft, or the changed payload, or --header")
    body = None if payload is None else read_payload(payload)

    async def show(found: Backend, table: RouteTable) -> RepublishDraft:
        return draft_of(await find_dead_letter(found, route, id), table)

    async def act(found: Backend, table: RouteTable) -> Republished:
        dead = await find_dead_letter(found, route, id)
        former = draft_of(dead, table)
        message = prepare_republication(dead, table, body or former.body, {**former.headers, **headers})
        try:
            return await republish(found, message, author=local_author(), why=why, purge=purge)
        except BackendUnavailable as error:
            raise CommandError(
                f"{error}; it is unknown whether message {former.id} was published",
                hint="repeat the command: that creates no duplicate",
                code=UNAVAILABLE,
            ) from error

    if draft:
        shown: RepublishDraft = run_on_backend(route, routes, backend, prefix, show)
        if json:
            print_json(shown)
        elif shown.payload is msgspec.UNSET:
            print_message("the body is not JSON" + ("" if shown.text else ", and it is masked as a whole"))
            print_data(printable(shown.text))
        else:
            print_data(msgspec.json.format(bytes(shown.payload), indent=2).decode())
        return OK
    result: Republished = run_on_backend(route, routes, backend, prefix, act)
    if json:
        print_json(result)
    else:
        if result.duplicate:
            print_message("duplicate: a message in place of this dead letter was published before")
        for each in result.changed:
            print_message(printable(f"changed {each or '(root)'}"))
        print_data(printable(result.id))
    if result.failure:
        print_message(printable(f"the dead letter is not purged: {result.failure}"))
    return FINDINGS if result.failure else OK
