"""`abe-router schema`: the JSON Schema of the routes file."""

from __future__ import annotations

from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.output import print_json


@as_command(
    "schema",
    """
    abe-router schema > routes.schema.json
    """,
)
def command() -> int:
    """Print the JSON Schema of the routes file, for completion and checks in editors.

    Editors find it by the first line of the routes file:
    # yaml-language-server: $schema=./routes.schema.json
    """
    from abe_router.config.language.editor import json_schema

    print_json(json_schema())
    return OK
