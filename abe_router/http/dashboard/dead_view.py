"""What the pages of dead letters share: the index, the filter in the URL, and selections that were shown.

A replay or a purge acts on exactly the dead letters that its dry run showed. Their ids are kept here until
the form comes back, once. After a restart, or when many others were shown since, the dry run is shown again.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from starlette.datastructures import QueryParams

from abe_router.backend import DeadLetter, SubscriptionName
from abe_router.http.access import Caller, Role
from abe_router.http.dashboard.page import route_path
from abe_router.http.dead_letters import check_filter
from abe_router.http.endpoint import read_real
from abe_router.http.problem import Refusal
from abe_router.http.site import SharedAnswer, Site
from abe_router.messages.pointer import is_pointer
from abe_router.operations.dead_groups import DeadGroup, Selection
from abe_router.operations.dead_index import MOST, IndexState, RouteIndex
from abe_router.operations.dead_letters import DeadLetterFilter
from abe_router.operations.masked import masked_payload
from abe_router.operations.replay import Replay, replays
from abe_router.operations.tail import holds, parse_filter
from abe_router.text import parse_duration

#: Most selections that are kept, and most dead letters of all of them.
MOST_SELECTIONS, MOST_SELECTED = 100, 2 * MOST
#: Payloads that a search reads at most, and of one call; how long it takes, in seconds; searches at a time.
SEARCHED, SEARCHED_AT_ONCE, SEARCHING, SEARCHES = 5_000, 50, 1.0, 2
#: After this time, in seconds, an index that was not refreshed is stale.
STALE = 15.0


@dataclass(frozen=True)
class LetterQuery:
    """The filter of a page, as its form has it.

    `since` and `until` are ages, such as 2h, or times in UTC. `payload` is POINTER=VALUE: the payload has the
    value there. The index cannot tell, so `DeadView.search` reads payloads for it.
    """

    group: str = ""
    kind: str = ""
    key: str = ""
    message_id: str = ""
    since: str = ""
    until: str = ""
    revision: str = ""
    payload: str = ""

    @classmethod
    def of(cls, params: QueryParams | Mapping[str, str]) -> LetterQuery:
        """Return the filter in the query of a URL."""
        return cls(**{each.name: params.get(each.name, "").strip() for each in fields(cls)})

    @property
    def params(self) -> Mapping[str, str]:
        """The conditions that are given, for the query of a URL."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}

    def where(self) -> DeadLetterFilter:
        """Return the filter; raise ValueError, or Refusal, if a condition is malformed."""
        found = DeadLetterFilter(
            kind=self.kind or None,
            key=self.key or None,
            message_id=self.message_id or None,
            since=_read_time(self.since, 0.0),
            until=_read_time(self.until, math.inf),
            group=self.group or None,
            revision=self.revision or None,
        )
        check_filter(found)
        if self.payload and not is_pointer(parse_filter(self.payload)[0]):
            raise ValueError(f"`{self.payload}` has no JSON pointer, such as /customer/id")
        return found


@dataclass(frozen=True)
class GroupRow:
    """A group as the pages show it. `path` is the list of its route.

    `bars` are (x, height) of its trend, and `recent` is the sum of them. `DeadView.with_trends` sets both.
    """

    group: DeadGroup
    path: str
    title: str
    detail: str
    bars: Sequence[tuple[int, float]] = ()
    recent: int = 0

    @property
    def is_hot(self) -> bool:
        """Whether some of them died within the last hour."""
        return bool(self.bars) and self.bars[-1][0] == _LAST_BAR


class DeadView:
    """The dead letters of one site, shared by all pages."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.index = site.dead_letters
        self.replays: SharedAnswer[Sequence[Replay]] = SharedAnswer(lambda: replays(site.source.backend))
        self._selections: dict[str, Selection] = {}
        self._searching = asyncio.Semaphore(SEARCHES)
        # What was made of an index, and of how many dead letters: an index only grows.
        self._rows: WeakKeyDictionary[RouteIndex, dict[bool, tuple[int, Sequence[GroupRow]]]]
        self._rows = WeakKeyDictionary()
        self._trends: WeakKeyDictionary[RouteIndex, tuple[int, int, Mapping[str, Sequence[int]]]]
        self._trends = WeakKeyDictionary()

    def rows(self, route: RouteIndex, caller: Caller) -> Sequence[GroupRow]:
        """Return the groups of a route as a caller may see them. A message may quote the payload."""
        sees = caller.allows_route(Role.READER, route.name)
        kept = self._rows.setdefault(route, {})
        known = kept.get(sees)
        if known is None or known[0] != len(route):
            rows = [_row(group, sees) for group in route.found().groups]
            known = kept[sees] = len(route), rows
        return known[1]

    def with_trends(self, rows: Iterable[GroupRow]) -> Sequence[GroupRow]:
        """Return rows with their trends, which are at most a minute old."""
        minute = int(time.time() / 60)
        routes = {route.name: route for route in self.index.routes()}
        found = []
        for row in rows:
            route = routes.get(row.group.route)
            if route is None:
                continue
            known = self._trends.get(route)
            if known is None or known[:2] != (len(route), minute):
                known = self._trends[route] = len(route), minute, route.trends(time.time())
            found.append(_with_trend(row, known[2].get(row.group.group, ())))
        return found

    async def search(self, part: RouteIndex, positions: Sequence[int], text: str) -> tuple[list[int], int]:
        """Return those of some dead letters whose payloads have a value, and how many were looked at.

        The newest ones are looked at, at most SEARCHED, and no longer than SEARCHING. What is masked is not
        found.
        """
        pointer, value = parse_filter(text)
        table, began, found, looked = self.site.source.table, time.monotonic(), list[int](), 0

        def holding(letters: Sequence[DeadLetter]) -> set[str]:
            return {each.id for each in letters if holds(masked_payload(table, each.message), pointer, value)}

        async with self._searching:
            newest = positions[::-1][:SEARCHED]
            while looked < len(newest) and time.monotonic() - began < SEARCHING:
                some = sorted(newest[looked : looked + SEARCHED_AT_ONCE])
                letters = await part.fetch(self.site.source.backend, some, bodies=True)
                ids = await asyncio.to_thread(holding, letters)
                found += (at for at in some if part.ids[at] in ids)
                looked += len(some)
        return sorted(found), looked

    async def running(self, caller: Caller, route: str = "") -> Sequence[Replay]:
        """Return the replays that run, of one route or of all that the caller may see."""
        return [
            each
            for each in await self.replays.get()
            if each.state == "running"
            and route in ("", each.route)
            and caller.allows_route(Role.VIEWER, each.route)
        ]

    def keep(self, selection: Selection) -> str:
        """Keep a selection until its form comes back; return its name."""
        while self._selections and (
            len(self._selections) >= MOST_SELECTIONS
            or sum(len(each.ids) for each in self._selections.values()) + len(selection.ids) > MOST_SELECTED
        ):
            del self._selections[next(iter(self._selections))]
        name = secrets.token_urlsafe(9)
        self._selections[name] = selection
        return name

    def kept(self, name: str, route: SubscriptionName) -> Selection | None:
        """Return a selection of a route; None if it is not kept any more."""
        found = self._selections.get(name)
        return found if found is not None and found.route == "/".join(route) else None

    def use(self, name: str) -> None:
        """Forget a selection, so that its form acts once."""
        self._selections.pop(name, None)

    def acted(self, route: SubscriptionName) -> None:
        """Read a route anew, because an action has changed its dead letters."""
        self.index.forget(route)
        self.replays.forget()


def notice_of(state: IndexState) -> str:
    """Return what a page says about the age and the completeness of its figures, empty if nothing."""
    if state.at is None:
        if state.error:
            return f"The backend does not answer: {state.error}"
        return f"Reading the dead letters: {state.read:,} of {state.total:,} so far."
    shown = f"{datetime.fromtimestamp(state.at, UTC):%H:%M:%S} UTC"
    if state.error:
        return f"The backend does not answer: {state.error}. This page shows what was known at {shown}."
    if time.time() - state.at > STALE:
        return f"The backend is slow. This page shows what was known at {shown}."
    if state.is_partial and state.read >= MOST:
        return f"There are {state.total:,} dead letters. The pages show the {state.read:,} oldest ones."
    return ""


def where_of(query: LetterQuery) -> tuple[DeadLetterFilter | None, str]:
    """Return the conditions of a query, or None and what is wrong with them."""
    try:
        return query.where(), ""
    except ValueError as error:
        return None, str(error)
    except Refusal as refused:
        return None, refused.detail


def path_of(route: SubscriptionName, *more: str) -> str:
    """Return the path of a page of a route."""
    return "/dead/" + route_path("/".join((*route, *more)))


#: The bars of a sparkline are three wide with one between them, 22 high at most, as its view box has them.
_BAR, _HIGH, _LAST_BAR = 4, 22.0, 92


def _row(group: DeadGroup, sees: bool) -> GroupRow:
    title = group.place or group.kind.replace("_", " ")
    detail = "; ".join(group.shapes) if sees else ""
    return GroupRow(group, f"/dead/{route_path(group.route)}", title, detail)


def _with_trend(row: GroupRow, trend: Sequence[int]) -> GroupRow:
    most = max(trend, default=0)
    bars = [(at * _BAR, round(_HIGH * count / most, 1)) for at, count in enumerate(trend) if count]
    return replace(row, bars=bars, recent=sum(trend))


def _read_time(text: str, default: float) -> float:
    """Return the time that an age, a time of ISO 8601 or a number of seconds since the epoch means."""
    if not text:
        return default
    with suppress(ValueError):
        return time.time() - parse_duration(text)
    with suppress(Refusal):
        return read_real(text, "time", default)
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    raise ValueError(f"`{text}` is neither an age, such as 2h, nor a time, such as 2026-11-26T13:30")
