"""Merges the answers of several partitions: pages, each of which is in order, and statuses."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from abe_router.backend import SubscriptionStatus
from abe_router.messages.pattern import matches

T = TypeVar("T")

#: Items that are read of each partition in addition to its share of a page.
_AHEAD = 10


class PartitionPages(Generic[T]):
    """The items of one partition after a position, read ahead.

    `read` returns at most so many items after a position, none at the end; `position` is that of an item. If
    `short_ends`, a page that is not full is the last one.
    """

    def __init__(
        self,
        read: Callable[[int, str], Awaitable[Sequence[T]]],
        position: Callable[[T], str],
        begin: str,
        *,
        short_ends: bool,
    ) -> None:
        self._read, self._position, self._short_ends = read, position, short_ends
        #: After the last item that was taken, and after the last one that was read.
        self.taken = self._last = begin
        self._items: deque[T] = deque()
        self._ended = False

    @property
    def is_empty(self) -> bool:
        """Whether the next item is not read yet."""
        return not self._items and not self._ended

    @property
    def first(self) -> T | None:
        """The next item, None at the end."""
        return self._items[0] if self._items else None

    async def fill(self, count: int) -> None:
        """Read the next items, so many at most."""
        found = await self._read(count, self._last)
        self._items.extend(found)
        self._ended = not found or (self._short_ends and len(found) < count)
        if found:
            self._last = self._position(found[-1])

    def take(self) -> T:
        """Return the next item."""
        item = self._items.popleft()
        self.taken = self._position(item)
        return item


async def merged(
    sources: Sequence[PartitionPages[T]], limit: int, order: Callable[[T], Any]
) -> list[tuple[T, str]]:
    """Return the first items of all sources, each with the position after it in all of them."""
    found: list[tuple[T, str]] = []
    count = min(limit, limit // len(sources) * 2 + _AHEAD)
    while len(found) < limit:
        if empty := [source for source in sources if source.is_empty]:
            await asyncio.gather(*(source.fill(count) for source in empty))
        first = min(_first(sources, order), default=None, key=lambda each: each[:2])
        if first is None:
            break
        item = first[2].take()
        found.append((item, join(source.taken for source in sources)))
    return found


def join(positions: Iterator[str]) -> str:
    """Return one text for the positions in all partitions, as `split` reads it."""
    return msgspec.json.encode(tuple(positions)).decode()


def split(cursor: str, count: int) -> Sequence[str]:
    """Return the positions of a cursor, empty ones for an empty one; raise ValueError when it is none."""
    if not cursor:
        return ("",) * count
    try:
        positions = msgspec.json.decode(cursor, type=tuple[str, ...])
    except msgspec.DecodeError:
        positions = ()
    if len(positions) != count:
        raise ValueError("`after` is not a cursor of `peek`")
    return positions


def sum_statuses(found: Sequence[Sequence[SubscriptionStatus]]) -> Sequence[SubscriptionStatus]:
    """Return the status of each subscription over all partitions."""
    by_name: dict[tuple[str, str], list[SubscriptionStatus]] = defaultdict(list)
    for status in (each for statuses in found for each in statuses):
        by_name[status.pattern, status.group].append(status)
    return [
        SubscriptionStatus(
            *name,
            ready=sum(each.ready for each in parts),
            in_flight=sum(each.in_flight for each in parts),
            delayed=sum(each.delayed for each in parts),
            dead=sum(each.dead for each in parts),
            oldest_at=min((each.oldest_at for each in parts if each.oldest_at is not None), default=None),
            next_due_at=min(
                (each.next_due_at for each in parts if each.next_due_at is not None), default=None
            ),
        )
        for name, parts in sorted(by_name.items())
    ]


def add_outputs(
    statuses: Sequence[SubscriptionStatus], outputs: Sequence[tuple[str, float]]
) -> Sequence[SubscriptionStatus]:
    """Count outputs, given by key and acceptance time, as ready for the subscriptions that will get them."""
    found = []
    for status in statuses if outputs else ():
        times = [at for key, at in outputs if matches(status.pattern, key)]
        oldest = min([*times, *([] if status.oldest_at is None else [status.oldest_at])], default=None)
        found.append(msgspec.structs.replace(status, ready=status.ready + len(times), oldest_at=oldest))
    return found or statuses


def _first(
    sources: Sequence[PartitionPages[T]], order: Callable[[T], Any]
) -> Iterator[tuple[Any, int, PartitionPages[T]]]:
    for number, source in enumerate(sources):
        if (item := source.first) is not None:
            yield order(item), number, source
