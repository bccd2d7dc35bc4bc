"""The group of all commands, each imported only when it is called."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from abe_router.cli.examples import ExampledCommand
from abe_router.cli.failure import BROKEN_PIPE, OK, end
from abe_router.observe.logs import PlainFormatter, start_logging

#: Every command and its one line of help; the command is `command` in the module of that name here.
COMMANDS = {
    "serve": "Run every route of the file, and follow the file as it changes.",
    "check": "Report every fault in a routes file, and in the schemas and handlers it names.",
    "test": "Run the `tests` of a routes file in memory, against its handlers.",
    "publish": "Check payloads against their schema and publish them.",
    "routes": "List the routes of a file, and the keys that are only published to.",
    "plan": "Show which routes a reload from OLD to NEW would start, stop, restart and keep.",
    "explain": "Say where a message would go, and why.",
    "status": "Count what waits, runs and failed for each route, and show the workers.",
    "dead": "List, show, replay and purge dead letters.",
    "doctor": "Look at the backend, and say what weakens the promise and how to mend it.",
    "drop": "Forget a route that is gone: its backlog and its dead letters.",
    "backends": "List the backend providers, what each can do, and which one `load_backend()` takes.",
    "schema": "Print the JSON Schema of the routes file, by which editors complete and check it.",
    "init": "Write a working starter folder: a routes file, a handler, a schema.",
    "completion": "Print the completion script of a shell.",
}


class LazyGroup(ExampledCommand, click.Group):
    """A group that knows the names and one-line helps of its commands, and imports a command on call."""

    def __init__(self, *args: Any, lines: Mapping[str, str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._lines = lines

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in their own order: the most used first."""
        return list(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in self._lines:
            return None
        command: click.Command = import_module(f"abe_router.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments; for an unknown one, name what is close to it."""
        name = args[0]
        if name not in self._lines and not name.startswith("-") and not ctx.resilient_parsing:
            close = get_close_matches(name, self._lines, 1)
            raise click.UsageError(
                f"no command `{name}`" + (f", did you mean `{close[0]}`?" if close else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the names and lines without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names without importing any command."""
        names = [CompletionItem(n, help=line) for n, line in self._lines.items() if n.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("abe-router")
        except PackageNotFoundError:  # a plain source tree
            number = "(not installed)"
        click.echo(f"abe-router {number}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lines=COMMANDS,
    examples="""
    abe-router init shop                              write a starter folder
    abe-router serve                                  run routes.yaml
    abe-router publish orders.created '{"total": 5}'  send a message
    """,
    context_settings={"auto_envvar_prefix": "ABE_ROUTER", "show_default": True, "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Route messages to plain Python functions, by one YAML file.

    ROUTES, where a command takes it, is the routes file: $ABE_ROUTER_CONFIG or else routes.yaml.

    Exit codes: 0 ok, 1 findings or rejected input, 2 usage, 69 backend unreachable, 70 a bug of ours,
    78 bad routes file.
    """


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; say on stderr what went wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a terminal that lacks a character still gets its line
    start_logging(sys.stderr, logging.WARNING, PlainFormatter())
    try:
        try:
            given = list(sys.argv[1:] if args is None else args)
            code = root.main(given, prog_name="abe-router", standalone_mode=False, obj=given) or OK
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  the last stop of every error
            code = end(error)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left (`| head`). What is still buffered must not fail again at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return int(code)
