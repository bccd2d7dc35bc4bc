"""What the page that publishes has of a dead letter, in place of which a message is published."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from abe_router.backend import DeadLetter
from abe_router.http.access import Caller, Role
from abe_router.http.dashboard.dead_view import path_of
from abe_router.http.dashboard.page import Notice
from abe_router.http.problem import invalid
from abe_router.http.republish import OFF, find_to_republish, is_allowed
from abe_router.http.site import Site
from abe_router.messages.pattern import is_group, is_pattern
from abe_router.operations.republish import RepublishDraft, Republished, draft_of
from abe_router.routing.table import RouteTable


@dataclass(frozen=True)
class Replaced:
    """A dead letter that is to be changed, and what the page says about it.

    `name` is KEY/GROUP/ID. `kept` are headers that cannot be written in one line, so they stay as they are.
    `receivers` are the routes that the new message goes to, as far as the caller may see them.
    """

    dead: DeadLetter
    draft: RepublishDraft
    kept: dict[str, str]
    receivers: Sequence[str]
    may_purge: bool

    @property
    def name(self) -> str:
        """KEY/GROUP/ID, as the query of the page has it."""
        return f"{self.dead.route}/{self.dead.id}"

    @property
    def list_path(self) -> str:
        """The path of the list that has the dead letter."""
        pattern, _, group = self.dead.route.rpartition("/")
        return path_of((pattern, group))

    @property
    def path(self) -> str:
        """The path of the page of the dead letter."""
        pattern, _, group = self.dead.route.rpartition("/")
        return path_of((pattern, group), self.dead.id)

    @property
    def headers(self) -> str:
        """The headers as lines of `NAME: VALUE`."""
        given = self.draft.headers.items()
        return "\n".join(f"{name}: {value}" for name, value in given if name not in self.kept)


async def find_replaced(request: Request, site: Site) -> Replaced | None:
    """Return the dead letter in the query of a request, None if there is none.

    Raise UnknownDeadLetter, and Refusal if the caller may not change it.
    """
    name = request.query_params.get("dead", "")
    if not name:
        return None
    pattern, _, rest = name.partition("/")
    group, _, id = rest.partition("/")
    if not is_pattern(pattern) or not is_group(group) or not id:
        raise invalid("`dead` is KEY/GROUP/ID, such as orders.created/billing/17")
    await site.dead_letters.refresh()
    dead, caller = await find_to_republish(request, site, (pattern, group), id)
    table = site.source.table
    draft = await asyncio.to_thread(draft_of, dead, table)
    return Replaced(
        dead,
        draft,
        kept={name: value for name, value in draft.headers.items() if not _fits_line(name, value)},
        receivers=[
            each.name for each in table.match(dead.message.key) if caller.allows_route(Role.VIEWER, each.name)
        ],
        may_purge=caller.allows(Role.OPERATOR, pattern),
    )


def republish_refusal(table: RouteTable, caller: Caller, key: str | None = None) -> str:
    """Return why a caller that reads a dead letter may not change it, empty if it may."""
    if not is_allowed(table):
        return OFF
    if caller.allows(Role.PUBLISHER, key):
        return ""
    return f"the token does not have the role publisher{f' for {key}' if key else ''}"


def notice_of_republished(replaced: Replaced, found: Republished) -> Notice:
    """Return what came of a republication, as the next page says it."""
    letter = f"dead letter {replaced.dead.id}"
    said = f"published {found.id} to {replaced.dead.message.key} in place of {letter}"
    if found.duplicate:
        said = f"not published: {found.id}, in place of {letter}, was accepted before"
    if found.purged:
        said += f", and purged {letter}"
    elif found.failure:
        said += f". {letter.capitalize()} is not purged: {found.failure}"
    return Notice(f"{said}.", "warn" if found.duplicate or found.failure else "ok")


def _fits_line(name: str, value: str) -> bool:
    """Return whether a line `NAME: VALUE` stands for exactly this header."""
    line = f"{name}: {value}"
    return (
        ":" not in name
        and bool(name)
        and (name, value) == (name.strip(), value.strip())
        and line.splitlines() == [line]
    )
