"""`abe-router schema`: the JSON Schema of the routes file."""

from __future__ import annotations

from abe_router.cli.examples import as_command
from abe_router.cli.failure import OK
from abe_router.cli.screen import show_json


@as_command(
    "schema",
    """
    abe-router schema > routes.schema.json
    """,
)
def command() -> int:
    """Print the JSON Schema of the routes file, by which editors complete and check it.

    The first line of the routes file names it:
    # yaml-language-server: $schema=./routes.schema.json
    """
    from abe_router.config.language.editor import json_schema

    show_json(json_schema())
    return OK
