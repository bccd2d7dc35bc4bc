"""`abe-router init`: a starter folder that works."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

import click

from abe_router.cli.errors import OK, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.output import print_data, print_message
from abe_router.text import printable

_STARTER = ("routes.yaml", "handlers.py", "schemas/orders.created.json")


@as_command(
    "init",
    """
    abe-router init shop
    """,
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
def command(folder: Path) -> int:
    """Create a working starter folder: a routes file with tests, handlers, a schema.

    Existing files are not overwritten. Prints the files it created and the commands to run next.
    """
    import msgspec

    from abe_router.config.language.editor import json_schema

    contents = {name: files("abe_router.cli").joinpath("starter", name).read_bytes() for name in _STARTER}
    contents["routes.schema.json"] = msgspec.json.format(msgspec.json.encode(json_schema())) + b"\n"
    existing = [str(folder / name) for name in contents if (folder / name).exists()]
    if existing:
        hint = "choose another folder; nothing was written"
        raise CommandError(f"`{existing[0]}` already exists", hint=hint)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:  # x: a file created meanwhile is not overwritten either
            file.write(content)
        print_data(printable(str(path)))
    print_message("\nnext:")
    if folder != Path():
        print_message(f"  cd {shlex.quote(str(folder))}")
    print_message("  abe-router serve")
    print_message("and in another terminal:")
    if folder != Path():
        print_message(f"  cd {shlex.quote(str(folder))}")
    print_message("""  abe-router publish orders.created '{"id": 7, "total": 250}'""")
    return OK
