"""What the caller may do, with which keys, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import INCLUDED, Caller, Role, caller_of
from abe_router.http.dashboard.page import PageRoute, Pages
from abe_router.http.dashboard.republish import republish_refusal
from abe_router.http.site import Site
from abe_router.routing.table import RouteTable

#: Each action, its role, and whether it is only for tokens that are not limited to some keys.
ACTIONS: Sequence[tuple[str, Role, bool]] = (
    ("See routes, counts, groups of dead letters, keys and the graph", Role.VIEWER, False),
    ("See the workers and the edits of the routes file", Role.VIEWER, True),
    ("Follow the tail, without payloads", Role.VIEWER, False),
    ("Read payloads, headers and error texts: dead letters and the tail", Role.READER, False),
    ("Read the files of edits and their differences", Role.READER, True),
    ("Publish messages", Role.PUBLISHER, False),
    ("Pause, limit and resume routes", Role.OPERATOR, False),
    ("Try, replay and purge dead letters", Role.OPERATOR, False),
    ("Read the audit", Role.OPERATOR, True),
    ("Drop removed routes", Role.ADMIN, False),
)


@dataclass(frozen=True)
class Permission:
    """An action and the role that it needs. `refused` says why the caller may not do it, empty if it may.

    `granted_by` are the caller's own roles that include the role.
    """

    action: str
    role: Role
    refused: str
    granted_by: Sequence[str]


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page."""

    async def permissions(request: Request) -> Response:
        caller = caller_of(request)
        keys = site.source.table.keys
        return await pages.render(
            request,
            "permissions.html",
            title="Your permissions",
            permissions=[
                *(_permission(caller, *each) for each in ACTIONS),
                _republish(caller, site.source.table),
            ],
            limited=caller.is_limited,
            own=[key for key in keys if any(caller.allows(role, key) for role in caller.roles)],
            total=len(keys),
        )

    return [PageRoute("/permissions", permissions, None)]


def _permission(caller: Caller, action: str, role: Role, needs_all: bool) -> Permission:
    granted_by = sorted(own for own in caller.roles if role in INCLUDED[own])
    refused = ""
    if not granted_by:
        refused = f"the token does not have the role {role.value}"
    elif needs_all and caller.is_limited:
        refused = "the token is limited to some keys, and this concerns all"
    return Permission(action, role, refused, granted_by)


def _republish(caller: Caller, table: RouteTable) -> Permission:
    """Return the permission that needs an option of the routes file and two roles."""
    found = _permission(caller, "Change dead letters, and publish them", Role.PUBLISHER, False)
    refused = republish_refusal(table, caller)
    if not refused and not caller.allows(Role.READER):
        refused = "the token does not have the role reader"
    return replace(found, refused=refused)
