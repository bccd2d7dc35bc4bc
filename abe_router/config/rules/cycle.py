"""Routes that emit to each other in a circle."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from abe_router.messages.pattern import matches
from abe_router.routing.route import Route


def circles(routes: Sequence[Route]) -> list[tuple[Route, ...]]:
    """Return the shortest circle through each route that is on one, each circle once.

    A route is followed by those that get what it emits. A circle begins with the route that comes first
    in the file.
    """
    emitting = [route for route in routes if route.emit is not None]
    following = {
        route.name: [r for r in emitting if route.emit and matches(r.key, route.emit.key)]
        for route in emitting
    }
    found: dict[frozenset[str], tuple[Route, ...]] = {}
    for route in emitting:
        circle = _back_to(route, following)
        if circle is not None:
            found.setdefault(frozenset(r.name for r in circle), circle)
    return list(found.values())


def _back_to(start: Route, following: dict[str, list[Route]]) -> tuple[Route, ...] | None:
    """Return the shortest way from a route back to it, breadth first."""
    ways: deque[tuple[Route, ...]] = deque([(start,)])
    seen: set[str] = set()
    while ways:
        way = ways.popleft()
        for route in following[way[-1].name]:
            if route is start:
                return way
            if route.name not in seen:
                seen.add(route.name)
                ways.append((*way, route))
    return None
