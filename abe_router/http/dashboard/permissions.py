"""What the caller may do, and with which keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, caller_of
from abe_router.http.dashboard.page import PageRoute, Pages
from abe_router.http.site import Site

#: What each role permits, in the order of the page.
ACTIONS: Sequence[tuple[str, Role]] = (
    ("See routes, counts, edits, workers and the graph", Role.VIEWER),
    ("Read payloads and headers: dead letters and the tail", Role.READER),
    ("Publish messages", Role.PUBLISHER),
    ("Pause and limit routes, replay dead letters, read the audit", Role.OPERATOR),
    ("Purge dead letters, drop removed routes", Role.ADMIN),
)


@dataclass(frozen=True)
class Permission:
    """An action, the role that it needs, and whether the caller has it."""

    action: str
    role: Role
    allowed: bool


def routes(_: Site, pages: Pages) -> list[Route]:
    """Return the page."""

    async def permissions(request: Request) -> Response:
        caller = caller_of(request)
        found = [Permission(action, role, caller.allows(role)) for action, role in ACTIONS]
        return await pages.render(request, "permissions.html", title="Your permissions", permissions=found)

    return [PageRoute("/permissions", permissions, None)]
