"""`abe-router completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.output import print_data


@as_command(
    "completion",
    """
    abe-router completion bash >> ~/.bashrc
    abe-router completion zsh > "${fpath[1]}/_abe-router"
    abe-router completion fish > ~/.config/fish/completions/abe-router.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the completion script for a shell."""
    found = get_completion_class(shell)
    assert found is not None, "click knows every shell of the choices"
    print_data(found(ctx.find_root().command, {}, "abe-router", "_ABE_ROUTER_COMPLETE").source())
    return OK
