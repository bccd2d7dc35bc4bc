"""An index of the dead letters of a backend, in memory, for those that look at them again and again.

It has what filters and groups need of each dead letter, and no payload: about 200 bytes each. So a page of a
filtered list, the groups, and the position of a dead letter cost the backend no walk over all of them. One
index serves all readers.

A refresh reads what came since the last one. The backend does not say what was replayed or purged, only how
many dead letters there are. If the index has more of a route, or fewer twice in a row, because clocks
disagree about the order of ids, the route is read again from the start. Such readings take at most a part of
the time, so that the backend is not busy with them. Until then the index may have dead letters that are gone;
`fetch` does not return them.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from abe_router.backend import Backend, DeadLetter, SubscriptionName
from abe_router.errors import BackendError
from abe_router.messages.pattern import matches
from abe_router.operations.dead_groups import DeadGroups, Grouping, Selection
from abe_router.operations.dead_letters import DeadLetterFilter, find_dead_letter, read_pages
from abe_router.text import mask_credentials

#: Most dead letters that are indexed; later ones are not.
MOST = 200_000
#: How long a refresh holds, in seconds, and how long a reader waits for one.
FRESH, PATIENCE = 1.5, 0.15
#: A route is read again after so many times as long as its last reading took, at the earliest.
SPARING = 20.0
#: After this time, in seconds, new dead letters are looked for even if their number is the same.
LOOK = 10.0
#: After this time without readers, in seconds, the index is empty again.
IDLE = 900.0
#: Dead letters that are not wanted but read along, because one call is cheaper than two.
GAP = 20
#: The bars of a trend, and how long each is, in seconds.
BARS, BAR = 24, 3600.0


class RouteIndex:
    """The dead letters of one route, oldest first. The lists are parallel; texts that repeat are shared."""

    def __init__(self, route: SubscriptionName) -> None:
        self.route, self.name = route, "/".join(route)
        self.ids: list[str] = []
        self.messages: list[str] = []
        self.groups: list[str] = []
        self._keys: list[str] = []
        self._revisions: list[str] = []
        self._failed_at = array("d")
        self._kinds: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self._grouping = Grouping()

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, dead_letter: DeadLetter) -> None:
        """Add the next dead letter."""
        group = self._share(self._grouping.add(dead_letter, self.name))
        self.ids.append(dead_letter.id)
        self.messages.append(dead_letter.message.id)
        self.groups.append(group)
        self._keys.append(self._share(dead_letter.message.key))
        self._revisions.append(self._share(dead_letter.revision))
        self._failed_at.append(dead_letter.last_failed_at)
        self._kinds[group] = dead_letter.reason.kind

    def found(self) -> DeadGroups:
        """Return the groups, the largest first."""
        return self._grouping.result()

    @property
    def kinds(self) -> set[str]:
        """The kinds of the reasons."""
        return set(self._kinds.values())

    def positions(self, where: DeadLetterFilter) -> Sequence[int]:
        """Return the positions of those that satisfy the conditions."""
        found: Sequence[int] = range(len(self.ids))
        if where.group is not None:
            found = [at for at in found if self.groups[at] == where.group]
        if where.message_id is not None:
            found = [at for at in found if self.messages[at] == where.message_id]
        if where.kind is not None:
            groups = {group for group, kind in self._kinds.items() if kind == where.kind}
            found = [at for at in found if self.groups[at] in groups]
        if where.key is not None:
            keys = {key for key in set(self._keys) if matches(where.key, key)}
            found = [at for at in found if self._keys[at] in keys]
        if where.revision is not None:
            revisions = {each for each in set(self._revisions) if each.startswith(where.revision)}
            found = [at for at in found if self._revisions[at] in revisions]
        if where.since > 0 or where.until < float("inf"):
            times = self._failed_at
            found = [at for at in found if where.since <= times[at] <= where.until]
        return found

    def positions_of(self, ids: Collection[str]) -> Sequence[int]:
        """Return the positions of these dead letters, of those that the index has."""
        return [at for at, id in enumerate(self.ids) if id in ids]

    def count(self, positions: Sequence[int]) -> Mapping[str, int]:
        """Return how many of these dead letters are of each group, the largest first."""
        return dict(Counter(self.groups[at] for at in positions).most_common())

    def trends(self, now: float) -> Mapping[str, Sequence[int]]:
        """Return how many dead letters of each group failed last in each of the last 24 hours."""
        trends: dict[str, list[int]] = {}
        for group, at in zip(self.groups, self._failed_at, strict=True):
            bar = int((now - at) / BAR)
            if 0 <= bar < BARS or -BAR < now - at < 0:  # another clock may be ahead
                trends.setdefault(group, [0] * BARS)[BARS - 1 - max(0, bar)] += 1
        return trends

    def selection(self, positions: Iterable[int], *, missing: int = 0) -> Selection:
        """Return these dead letters as a selection, for a replay. It does not have their groups."""
        chosen = list(positions)
        return Selection(
            route=self.name,
            ids=tuple(self.ids[at] for at in chosen),
            fingerprints=tuple(self.groups[at] for at in chosen),
            messages=tuple(self.messages[at] for at in chosen),
            groups=DeadGroups(()),
            missing=missing,
            last=self.ids[-1] if self.ids else "",
        )

    async def extend(self, backend: Backend, most: int) -> None:
        """Add the dead letters that came since the last call, at most `most`."""
        if most <= 0:
            return
        after = self.ids[-1] if self.ids else ""
        async for page in read_pages(backend, self.route, after=after):
            for dead_letter in page[:most]:
                self.add(dead_letter)
            most -= len(page)
            if most <= 0:
                return

    async def fetch(
        self, backend: Backend, positions: Sequence[int], *, bodies: bool = False
    ) -> Sequence[DeadLetter]:
        """Return the dead letters at these positions, in their order, without those that are gone."""
        wanted = {self.ids[at] for at in positions}
        ranges = _ranges(positions, 0 if bodies else GAP)
        pages = await asyncio.gather(*(self._read(backend, *each, bodies=bodies) for each in ranges))
        return [each for page in pages for each in page if each.id in wanted]

    async def _read(self, backend: Backend, first: int, last: int, *, bodies: bool) -> Sequence[DeadLetter]:
        found: list[DeadLetter] = []
        after = self.ids[first - 1] if first else ""
        while (left := last - first + 1 - len(found)) > 0 and (
            page := await backend.dead_letters(*self.route, limit=left, after=after, bodies=bodies)
        ):
            found += page
            after = page[-1].id
        return found

    def _share(self, text: str) -> str:
        return self._shared.setdefault(text, text)


@dataclass(frozen=True)
class IndexState:
    """How well the index shows the backend.

    `at` is the time of the last complete refresh, in seconds since the epoch, or None. While the first one
    is under way, `read` of about `total` dead letters are indexed. `error` says why the last one failed.
    """

    at: float | None
    read: int
    total: int
    error: str = ""

    @property
    def is_partial(self) -> bool:
        """Whether there are dead letters that the index does not have."""
        return self.read < self.total


class DeadLetterIndex:
    """The dead letters of all routes of a backend. `refresh` before reading it."""

    def __init__(self, backend: Callable[[], Backend]) -> None:
        self._backend = backend
        self._routes: dict[SubscriptionName, RouteIndex] = {}
        #: The earliest time at which each route is read again, and the last time it was looked at.
        self._again: dict[SubscriptionName, float] = {}
        self._looked: dict[SubscriptionName, float] = {}
        #: Routes of which the last refresh did not find all.
        self._short: set[SubscriptionName] = set()
        self._total = 0
        self._at: float | None = None
        self._error = ""
        self._refreshing: asyncio.Task[None] | None = None
        self._due = 0.0
        self._idle: asyncio.TimerHandle | None = None

    async def refresh(self) -> IndexState:
        """Read what came since the last refresh, unless that was just now; wait for it for a moment."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._routes.clear)
        task = self._refreshing
        if task is None or (task.done() and time.monotonic() >= self._due):
            task = self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.wait([task], timeout=PATIENCE)
        return IndexState(self._at, sum(map(len, self._routes.values())), self._total, self._error)

    def forget(self, route: SubscriptionName) -> None:
        """Read a route again with the next refresh, because dead letters of it were moved or deleted."""
        self._due = 0.0
        self._again.pop(route, None)
        self._looked.pop(route, None)

    def route(self, route: SubscriptionName) -> RouteIndex:
        """Return the dead letters of a route; it has none if the route is unknown."""
        return self._routes.get(route) or RouteIndex(route)

    async def find(self, route: SubscriptionName, id: str) -> DeadLetter:
        """Return one dead letter with its body; raise UnknownDeadLetter."""
        part, backend = self.route(route), self._backend()
        found = await part.fetch(backend, part.positions_of({id}), bodies=True)
        return found[0] if found else await find_dead_letter(backend, route, id)

    def routes(self) -> Sequence[RouteIndex]:
        """Return the routes that have dead letters."""
        return list(self._routes.values())

    async def _refresh(self) -> None:
        try:
            await self._read(self._backend())
        except BackendError as error:
            self._error = mask_credentials(str(error))
        else:
            self._at, self._error = time.time(), ""
        self._due = time.monotonic() + FRESH

    async def _read(self, backend: Backend) -> None:
        counts = await _dead(backend)
        self._total = sum(counts.values())
        for route in self._routes.keys() - counts.keys():
            del self._routes[route]
        for route, count in counts.items():
            known = self._routes.setdefault(route, RouteIndex(route))
            now = time.monotonic()
            if len(known) != count or now - self._looked.get(route, 0.0) > LOOK:
                await known.extend(backend, self._room())
                self._looked[route] = now
        if any(len(self._routes[route]) != count for route, count in counts.items()):
            counts = await _dead(backend)  # some may have come since the first one
        short = {route for route, count in counts.items() if len(self._routes.get(route, ())) < count}
        for route, count in counts.items():
            is_short = route in short & self._short and self._room() > 0
            if is_short or len(self._routes.get(route, ())) > count:
                await self._read_again(backend, route)
        self._short, self._total = short, sum(counts.values())

    async def _read_again(self, backend: Backend, route: SubscriptionName) -> None:
        began = time.monotonic()
        if began < self._again.get(route, 0.0):
            return
        known = RouteIndex(route)
        await known.extend(backend, self._room() + len(self._routes.get(route, ())))
        self._routes[route] = known
        ended = time.monotonic()
        self._again[route] = ended + SPARING * (ended - began)

    def _room(self) -> int:
        """Return how many more dead letters may be indexed."""
        return MOST - sum(map(len, self._routes.values()))


async def _dead(backend: Backend) -> Mapping[SubscriptionName, int]:
    """Return the number of dead letters of each route that has some."""
    return {(each.pattern, each.group): each.dead for each in await backend.status() if each.dead}


def _ranges(positions: Sequence[int], gap: int) -> Sequence[tuple[int, int]]:
    """Return the positions as ranges, first to last; a range may include up to `gap` others in a row."""
    ranges: list[tuple[int, int]] = []
    for at in positions:
        if ranges and at - ranges[-1][1] <= gap + 1:
            ranges[-1] = ranges[-1][0], at
        else:
            ranges.append((at, at))
    return ranges
