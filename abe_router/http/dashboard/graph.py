"""The page of the graph: keys, groups and emitted keys, with what each route does now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, require
from abe_router.http.dashboard.charts import count_label
from abe_router.http.dashboard.page import PageRoute, Pages, route_path
from abe_router.http.dashboard.route_list import RouteRow, known_states, route_rows
from abe_router.http.site import Site
from abe_router.operations.graph import graph_of
from abe_router.operations.graph_svg import Overlay, svg

#: Most routes that are drawn.
MOST = 200


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page."""

    async def graph(request: Request) -> Response:
        caller, table = require(request, Role.VIEWER), site.source.table
        reading = await site.sampler.read()
        root, words = request.scope.get("root_path", ""), request.query_params.get("q", "").lower().split()

        def drawn() -> dict[str, Any]:
            known = [state for state in known_states(table, reading) if state.route in table.by_name]
            rows = [row for row in route_rows(site, caller, known) if row.matches(words)]
            shown = {row.state.route: row for row in rows[:MOST]}
            whole = graph_of(table)
            keys = {row.key for row in shown.values()}
            linked = {node.id for node in whole.nodes if node.name in shown}
            for edge in whole.edges:  # the keys that groups get their messages from, and emit to
                if edge.source in linked or edge.target in linked:
                    keys |= {whole.by_id[edge.source].name, whole.by_id[edge.target].name}
            if not words:
                keys.update(table.keys)

            def is_shown(name: str) -> bool:
                return name in shown or (
                    "/" not in name and name in keys and caller.allows(Role.VIEWER, name)
                )

            part = whole.only(is_shown)
            # The drawing has made all of its texts safe.
            image = Markup(svg(part, overlay_of(shown, root)))  # noqa: S704
            return {"graph": image, "shown": len(shown), "count": len(rows), "nodes": len(part.nodes)}

        return await pages.render(
            request, "graph.html", title="Graph", make=drawn, reading=reading, most=MOST
        )

    return [PageRoute("/graph", graph, Role.VIEWER)]


def overlay_of(rows: Mapping[str, RouteRow], root: str) -> Overlay:
    """Return what the page adds to the graph: numbers, states and links of the routes."""
    return Overlay(
        notes={name: ", ".join(_numbers(row)) for name, row in rows.items()},
        classes={name: f"is-{row.level}" for name, row in rows.items() if row.level != "ok"},
        links={name: f"{root}/routes/{route_path(name)}" for name in rows},
    )


def _numbers(row: RouteRow) -> Sequence[str]:
    texts: list[str] = [row.condition.kind] if row.level != "ok" else []
    texts.append(f"{count_label(row.figures.rate)}/s")
    if row.backlog:
        texts.append(f"{count_label(row.backlog)} wait")
    if row.state.dead:
        texts.append(f"{count_label(row.state.dead)} dead")
    return texts
