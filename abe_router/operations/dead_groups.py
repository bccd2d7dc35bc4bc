"""Dead letters by fault: the groups of a route, and the dead letters that an operation is about to act on.

Both read every dead letter once, without its payload, and keep a bounded number of groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import msgspec

from abe_router.backend import Backend, DeadLetter, SubscriptionName
from abe_router.operations.dead_letters import DeadLetterFilter, read_pages, routes_with_dead_letters
from abe_router.operations.fingerprint import fingerprint, place, shape

#: Most groups that are kept; the dead letters of all others are counted together.
MOST_GROUPS = 1_000
#: Most shapes and revisions that a group shows.
MOST_SHAPES, MOST_REVISIONS = 3, 10
#: Of so many dead letters of a group, each one may add a shape. Of the later ones, each so many-th may.
ALL_SHAPES, EVERY_SHAPE = 1_000, 16


class DeadGroup(msgspec.Struct, frozen=True):
    """The dead letters of one route that have the same fingerprint.

    `place` is where the fault is: the pointer, or the type of the exception and the frame. `shapes` are up to
    three different messages without numbers and ids. `first_seen` and `last_seen` are the times of the last
    failures, in seconds since the epoch. `revisions` counts the dead letters by the revision of the table.
    `replayed` of them were replayed before. `sample` is the id of the newest one, and `message` its message.
    """

    group: str
    route: str
    count: int
    kind: str
    place: str
    shapes: tuple[str, ...]
    first_seen: float
    last_seen: float
    revisions: dict[str, int]
    replayed: int
    sample: str
    message: str


class DeadGroups(msgspec.Struct, frozen=True):
    """The groups, the largest first. `others` is the number of dead letters of all further groups."""

    groups: tuple[DeadGroup, ...]
    others: int = 0


class Selection(msgspec.Struct, frozen=True):
    """The dead letters of one route that an operation acts on, fixed when they were selected.

    Dead letters that come later are not among them. `fingerprints` and `messages`, the ids of the messages,
    are parallel to `ids`. `missing` of the ids that were given do not exist. `last` is the newest dead letter
    of the route, selected or not.
    """

    route: str
    ids: tuple[str, ...]
    fingerprints: tuple[str, ...]
    messages: tuple[str, ...]
    groups: DeadGroups
    missing: int = 0
    last: str = ""


async def dead_groups(
    backend: Backend, route: SubscriptionName | None = None, *, where: DeadLetterFilter | None = None
) -> DeadGroups:
    """Return the groups of a route, or of every route in the backend."""
    grouping = Grouping()
    for one in await routes_with_dead_letters(backend, route):
        name = "/".join(one)
        async for page in read_pages(backend, one):
            for dead_letter in page:
                if where is None or where.accepts(dead_letter):
                    grouping.add(dead_letter, name)
    return grouping.result()


async def select(
    backend: Backend,
    route: SubscriptionName,
    *,
    ids: Collection[str] = (),
    where: DeadLetterFilter | None = None,
    first: int | None = None,
) -> Selection:
    """Return the dead letters of a route that are meant, oldest first.

    Without `ids`, they are all that satisfy `where`; with `first`, no more than that. Nothing is changed, so
    this is the dry run of an operation.
    """
    name, grouping, wanted = "/".join(route), Grouping(), set(ids)
    selected: list[str] = []
    fingerprints: list[str] = []
    messages: list[str] = []
    last = ""
    async for page in read_pages(backend, route):
        last = page[-1].id
        for dead_letter in page:
            if len(selected) == first:
                break
            if wanted and dead_letter.id not in wanted:
                continue
            if where is None or where.accepts(dead_letter):
                selected.append(dead_letter.id)
                fingerprints.append(grouping.add(dead_letter, name))
                messages.append(dead_letter.message.id)
    missing = len(wanted.difference(selected)) if wanted and first is None else 0
    return Selection(
        name, tuple(selected), tuple(fingerprints), tuple(messages), grouping.result(), missing, last
    )


class _Group:
    """What is known so far of the dead letters of a group."""

    def __init__(self, dead_letter: DeadLetter) -> None:
        self.count = self.replayed = 0
        self.first_seen = self.last_seen = dead_letter.last_failed_at
        self.newest = dead_letter
        self.shapes: dict[str, None] = {}
        self.revisions: Counter[str] = Counter()

    def add(self, dead_letter: DeadLetter) -> None:
        self.count += 1
        self.replayed += dead_letter.replays > 0
        failed_at = dead_letter.last_failed_at
        if failed_at >= self.last_seen:
            self.last_seen, self.newest = failed_at, dead_letter
        elif failed_at < self.first_seen:
            self.first_seen = failed_at
        if len(self.shapes) < MOST_SHAPES and (
            self.count < ALL_SHAPES or self.count % EVERY_SHAPE == 0  # it costs as much as all the rest
        ):
            self.shapes[shape(dead_letter.reason.message)] = None
        if dead_letter.revision in self.revisions or len(self.revisions) < MOST_REVISIONS:
            self.revisions[dead_letter.revision] += 1


class Grouping:
    """Sorts dead letters into groups. It keeps one dead letter of each, without its payload."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}
        self._others = 0

    def add(self, dead_letter: DeadLetter, route: str) -> str:
        """Count a dead letter of a route; return its fingerprint."""
        name = fingerprint(dead_letter.reason)
        group = self._groups.get((route, name))
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                self._others += 1
                return name
            group = self._groups[route, name] = _Group(dead_letter)
        group.add(dead_letter)
        return name

    def result(self) -> DeadGroups:
        """Return all groups, those with the most dead letters first."""
        found = sorted(self._groups.items(), key=lambda item: (-item[1].count, item[0]))
        return DeadGroups(tuple(_shown(*name, group) for name, group in found), self._others)


def _shown(route: str, name: str, group: _Group) -> DeadGroup:
    newest = group.newest
    return DeadGroup(
        group=name,
        route=route,
        count=group.count,
        kind=newest.reason.kind,
        place=place(newest.reason),
        shapes=tuple(group.shapes),
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        revisions=dict(group.revisions.most_common()),
        replayed=group.replayed,
        sample=newest.id,
        message=newest.reason.message,
    )
