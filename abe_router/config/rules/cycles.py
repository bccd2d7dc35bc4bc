"""Cycles of routes that emit: a message that passes one comes back to the same route.

A route emits one key, and the key leads to routes. Both are followed, so that the work grows with the size of
the file: a thousand routes that emit one key to a thousand others have two thousand steps, not a million.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from abe_router.messages.pattern import PatternIndex
from abe_router.routing.route import Route

#: Most steps of the search for the shortest cycles. Behind it, cycles of a very large file are not found.
MAX_STEPS = 500_000

#: For each key that is emitted, the emitting routes that get it, by their numbers.
_Following = Mapping[str, Sequence[int]]


def cycles(routes: Sequence[Route]) -> list[tuple[Route, ...]]:
    """Return the shortest cycle through each route that is on one, each cycle once.

    A route is followed by the routes that get what it emits. A cycle begins with its first route in the file.
    """
    emitting = [route for route in routes if route.emit is not None]
    emitted = [route.emit.key for route in emitting if route.emit is not None]
    following = _following([route.key for route in emitting], emitted)
    left, found = MAX_STEPS, dict[frozenset[int], tuple[Route, ...]]()
    for number in _endless(emitted, following):
        cycle, steps = _back_to(number, emitted, following, left)
        left -= steps
        if cycle:
            found.setdefault(frozenset(cycle), tuple(emitting[each] for each in cycle))
        if left <= 0:
            break
    return list(found.values())


def _following(keys: Sequence[str], emitted: Sequence[str]) -> _Following:
    index = PatternIndex((key, number) for number, key in enumerate(keys))
    return {key: index.match(key) for key in dict.fromkeys(emitted)}


def _endless(emitted: Sequence[str], following: _Following) -> list[int]:
    """Return the routes whose messages can pass from route to route without end, in order."""
    emitters: dict[str, list[int]] = defaultdict(list)
    leading: dict[int, list[str]] = defaultdict(list)
    for number, key in enumerate(emitted):
        emitters[key].append(number)
    for key, numbers in following.items():
        for number in numbers:
            leading[number].append(key)
    left = {key: len(numbers) for key, numbers in following.items()}
    ending, ended = [key for key, count in left.items() if not count], set[int]()
    while ending:
        for number in emitters[ending.pop()]:
            ended.add(number)
            for key in leading[number]:
                left[key] -= 1
                if not left[key]:
                    ending.append(key)
    return [number for number in range(len(emitted)) if number not in ended]


def _back_to(start: int, emitted: Sequence[str], following: _Following, most: int) -> tuple[list[int], int]:
    """Return the shortest path from a route back to itself, and the steps of the search.

    The path is empty when there is none, or when the search takes more than `most` steps.
    """
    before: dict[int, int] = {}
    waiting, keys, steps = deque([start]), set[str](), 0
    while waiting and steps < most:
        number = waiting.popleft()
        if (key := emitted[number]) in keys:
            continue
        keys.add(key)
        for other in following[key]:
            steps += 1
            if other == start:
                return _path(start, number, before), steps
            if other not in before:
                before[other] = number
                waiting.append(other)
    return [], steps


def _path(start: int, last: int, before: Mapping[int, int]) -> list[int]:
    path = [last]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]
