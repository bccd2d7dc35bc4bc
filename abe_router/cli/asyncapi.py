"""`abe-router asyncapi`: the AsyncAPI document of a routes file."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from abe_router.cli.access import read_table
from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import option, routes_argument
from abe_router.cli.output import print_data, print_json, print_message
from abe_router.text import printable


@as_command(
    "asyncapi",
    """
    abe-router asyncapi > asyncapi.yaml
    abe-router asyncapi --format json | jq '.channels | keys'
    """,
)
@routes_argument
@option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="The format.")
def command(routes: Path, form: str) -> int:
    """Print the AsyncAPI 3.1 document of a routes file: its keys, messages and groups.

    Schemas become components of the document, so it needs no other file. It has no credentials. Handlers
    are not imported.
    """
    from abe_router.operations.asyncapi import asyncapi_document

    document = asyncapi_document(read_table(routes))
    for part in document["x-abe-router"].get("unchecked", ()):
        print_message(f"warning: not in the document: {printable(part)}")
    # What stands in it twice would otherwise be written as an anchor and an alias.
    plain = msgspec.json.decode(msgspec.json.encode(document))
    text = msgspec.yaml.encode(plain).decode().rstrip("\n") if form == "yaml" else ""
    # JSON can escape a character that would reorder the line on a terminal. It is YAML too.
    if text and text.replace("\n", "").isprintable():
        print_data(text)
    else:
        print_json(document)
    return OK
