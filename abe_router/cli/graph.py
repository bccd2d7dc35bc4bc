"""`abe-router graph`: the keys, groups and emitted keys of a routes file."""

from __future__ import annotations

from pathlib import Path

import click

from abe_router.cli.access import read_table
from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import option, routes_argument
from abe_router.cli.output import print_data


@as_command(
    "graph",
    """
    abe-router graph
    abe-router graph --format svg > routes.svg
    abe-router graph --format dot | dot -Tpng > routes.png
    """,
)
@routes_argument
@option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    help="The format: for Markdown, for Graphviz, or an image.",
)
def command(routes: Path, form: str) -> int:
    """Print the keys, groups and emitted keys of a routes file as a graph.

    A dashed line stands for a pattern. Handlers are not imported.
    """
    from abe_router.operations import graph, graph_svg

    shown = graph.graph_of(read_table(routes))
    render = {"mermaid": graph.mermaid, "dot": graph.dot, "svg": graph_svg.svg}[form]
    print_data(render(shown))
    return OK
