"""The group of all commands; each command is imported when it is called.

What `--help` does not need is imported where it is used, because imports are most of what a command costs.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from abe_router.cli.examples import CommandWithExamples
from abe_router.cli.options import root_config_option

#: Every command with its line of help. The module of that name in this package has it as `command`; see also
#: `_MODULES`.
COMMANDS = {
    "serve": "Run the routes of the file, and reload it when it changes.",
    "check": "Check a routes file, and the schemas and handlers it names.",
    "test": "Run the `tests` of a routes file in memory with its handlers.",
    "publish": "Check payloads against their schema and publish them.",
    "routes": "List the routes of a file, and the keys without consumers.",
    "plan": "Show which routes a reload from OLD to NEW starts, stops, restarts and keeps.",
    "asyncapi": "Print the AsyncAPI 3.1 document of a routes file: its keys, messages and groups.",
    "graph": "Print the keys, groups and emitted keys of a routes file as a graph.",
    "explain": "Show which routes receive a message, and why.",
    "status": "Show the message counts of each route, and the workers.",
    "top": "Show what all routes do now: rates, backlog, durations, failures.",
    "tap": "Show messages as they are accepted, sampled and masked.",
    "pause": "Pause routes for a time.",
    "limit": "Limit the rate of routes for a time.",
    "resume": "End the pause and the limit of routes.",
    "dead": "List, group, try, replay, republish and purge dead letters.",
    "history": "Show the edits of the routes file, newest first, or the files of one of them.",
    "audit": "Show what operators did, newest first: who, from where, why, and what came of it.",
    "dashboard": "Serve the API and the probes for a backend, without running handlers.",
    "doctor": "Check the backend, and show what weakens the promise and how to fix it.",
    "drop": "Delete the backlog and the dead letters of a removed route.",
    "backends": "List the backend providers and their features, and the one `load_backend()` selects.",
    "schema": "Print the JSON Schema of the routes file, for completion and checks in editors.",
    "init": "Create a working starter folder: a routes file with tests, handlers, a schema.",
    "completion": "Print the completion script for a shell.",
}

#: The modules of commands that share one, in which they are named as they are called.
_MODULES = {"pause": "overrides", "limit": "overrides", "resume": "overrides"}

#: Names of other programs for a command of this one.
_OTHER_NAMES = {
    "lint": "check",
    "validate": "check",
    "start": "serve",
    "run": "serve",
    "up": "serve",
    "list": "routes",
    "ls": "routes",
    "watch": "status --watch",
    "tail": "tap",
    "replay": "dead replay",
    "purge": "dead purge",
}


class _ReaderGone(Exception):
    """Raised in place of a BrokenPipeError, which click turns into exit code 1."""


class LazyGroup(CommandWithExamples, click.Group):
    """A group that has the names and help lines of its commands, and imports a command when it is called."""

    def __init__(self, *args: Any, lines: Mapping[str, str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._lines = lines

    def make_context(self, *args: Any, **rest: Any) -> click.Context:
        """Make the context, which prints `--help`; raise _ReaderGone when the pipe is closed."""
        try:
            return super().make_context(*args, **rest)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; raise _ReaderGone when the pipe is closed."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of `COMMANDS`: the most used first."""
        return list(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in self._lines:
            return None
        shared = _MODULES.get(cmd_name)
        module = import_module(f"abe_router.cli.{shared or cmd_name}")
        command: click.Command = getattr(module, cmd_name if shared else "command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments; for an unknown one, suggest the closest name."""
        name = args[0]
        if name not in self._lines and not name.startswith("-") and not ctx.resilient_parsing:
            from abe_router.text import did_you_mean

            other = _OTHER_NAMES.get(name)
            hint = f"did you mean `{other}`?" if other else did_you_mean(name, self._lines)
            raise click.UsageError(f"no command `{name}`" + (f", {hint}" if hint else ""), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the names and help lines without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete the names without importing any command."""
        from click.shell_completion import CompletionItem

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
    abe-router init shop                                         create a starter folder
    abe-router serve                                             run the routes of routes.yaml
    abe-router publish orders.created '{"id": 7, "total": 250}'  publish a message
    """,
    context_settings={
        "auto_envvar_prefix": "ABE_ROUTER",
        "show_default": True,
        "max_content_width": 100,
        "help_option_names": ["-h", "--help"],
    },
)
@root_config_option
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Route messages to plain Python functions, configured by one YAML file.

    ROUTES is the routes file. It defaults to $ABE_ROUTER_CONFIG, then to routes.yaml in this folder or
    in the nearest parent that has one.

    Exit codes: 0 success, 1 findings or rejected input, 2 wrong usage, 69 backend unreachable,
    70 bug in abe-router, 78 faulty routes file.
    """
    import logging

    from abe_router.observe.logs import PlainFormatter, start_logging

    start_logging(sys.stderr, logging.WARNING, PlainFormatter())


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are reported on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal's encoding lacks is escaped, and the rest of the line is printed.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            given = list(sys.argv[1:] if args is None else args)
            code = root.main(given, prog_name="abe-router", standalone_mode=False, obj=given) or 0
        except (BrokenPipeError, _ReaderGone):
            raise
        except Exception as error:  # noqa: BLE001  every error becomes an exit code
            _flush_log()
            code = _report(error)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard_output()
            code = code or _report(error)
    except (BrokenPipeError, _ReaderGone):  # the reader closed the pipe (`| head`)
        from abe_router.cli.errors import BROKEN_PIPE

        _discard_output()
        return BROKEN_PIPE
    return int(code)


def _flush_log() -> None:
    import logging

    for handler in logging.getLogger().handlers:
        handler.flush()


def _report(error: Exception) -> int:
    from abe_router.cli.errors import report_error

    return report_error(error)


def _discard_output() -> None:
    """Discard what stdout holds, which would fail again when the interpreter exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
