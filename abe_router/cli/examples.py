"""Commands whose help ends with examples."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Any

import click


class CommandWithExamples(click.Command):
    """A command with a section of examples; their lines are not wrapped."""

    def __init__(self, *args: Any, examples: str = "", **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._examples = cleandoc(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog of the command, if it has one."""
        if self._examples:
            with formatter.section("Examples"):
                for line in self._examples.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


def as_command(
    name: str, examples: str, group: click.Group | None = None
) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of a function that returns the exit code; without a `group` it is at the top level."""
    make = click.command if group is None else group.command
    return make(name, cls=CommandWithExamples, examples=examples)
