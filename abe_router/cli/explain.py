"""`abe-router explain`: where one message would go, why, and where each failure would end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from abe_router.cli.access import read_overrides, read_table
from abe_router.cli.errors import FINDINGS, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import config_option, headers_option, json_option, option
from abe_router.cli.output import print_data, print_json, print_message
from abe_router.cli.payload import read_payload
from abe_router.operations.explain import Explanation, MessageId, RouteExplanation, explain
from abe_router.routing.table import Metadata
from abe_router.text import format_duration, printable


@as_command(
    "explain",
    """
    abe-router explain orders.created '{"id": 7, "total": 250}'
    """,
)
@click.argument("key")
@click.argument("payload", metavar="JSON|@FILE|-")
@config_option
@option("--allow-unrouted", is_flag=True, help="Accept keys that the routes file does not name.")
@headers_option
@json_option
def command(
    key: str, payload: str, routes: Path, allow_unrouted: bool, headers: Mapping[str, str], json: bool
) -> int:
    """Show which routes receive a message, and why.

    Shows the result of each schema, the id by which duplicates are found, which routes match and why the
    others do not, when a failed message is retried, and where it ends. Nothing is published and no handler
    is imported. The exit code is 1 when the message would be refused.
    """
    table = read_table(routes)
    explanation = explain(
        table,
        key,
        read_payload(payload),
        headers=headers,
        allow_unrouted=allow_unrouted,
        overrides=read_overrides(table),
    )
    if json:
        print_json(explanation)
    else:
        for line in _lines(explanation):
            print_data(printable(line))
        if explanation.accepted:
            print_message("the message would be accepted")
        else:
            print_message(f"refused: {printable(str(explanation.reason))}")
    return OK if explanation.accepted else FINDINGS


def _lines(explanation: Explanation) -> Iterator[str]:
    yield from _metadata_lines(explanation.metadata)
    if explanation.deduplication:
        yield _id_line(explanation.deduplication)
    for result in explanation.schemas:
        yield f"schema {result.schema} on {result.pattern}: {'broken' if result.violations else 'ok'}"
        for violation in result.violations:
            yield f"  {violation}"
    for route in sorted(explanation.routes, key=lambda route: not route.matches):
        yield from _route_lines(route)


def _id_line(known: MessageId) -> str:
    if not known.window:
        return f"id {known.id}: duplicates are not detected"
    return f"id {known.id}: duplicates are dropped for {format_duration(known.window)}"


def _metadata_lines(metadata: Metadata) -> Iterator[str]:
    if metadata.description:
        yield f"description: {' '.join(metadata.description.split())}"
    if metadata.owner:
        yield f"owner: {metadata.owner}"
    if metadata.tags:
        yield f"tags: {', '.join(metadata.tags)}"


def _route_lines(route: RouteExplanation) -> Iterator[str]:
    result = "delivered" if route.delivered else "not delivered" if route.matches else "no match"
    yield f"route {route.route} ({route.handler}): {result}"
    for line in (*_metadata_lines(route.metadata), *route.why, *route.how):
        yield f"  {line}"
    if len(route.attempts) > 1:
        times = ", ".join(format_duration(seconds) for seconds in route.attempts[1:])
        yield f"  retried at the latest after {times}"
    for failure, end in route.ends.items():
        yield f"  if {failure}: {end}"
