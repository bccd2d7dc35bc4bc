"""Makes an input smaller while it still shows the same fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

#: The longest time for one input, in seconds.
LONGEST = 5.0


def minimise(given: Any, fails: Callable[[Any], bool], seconds: float = LONGEST) -> Any:
    """Return a smaller input for which `fails` still returns true, found within `seconds`."""
    until = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for smaller in _smaller(given):
            if time.monotonic() > until:
                return given
            if fails(smaller):
                given, found = smaller, True
                break
    return given


def _smaller(given: Any) -> Iterator[Any]:
    """Yield variants of an input, those that lack most first."""
    if isinstance(given, bytes | str | list):
        given = cast("list[Any]", given)  # the three are cut alike
        size = len(given)
        step = size
        while step:
            for start in range(0, size, step):
                yield given[:start] + given[start + step :]
            step //= 2
    if isinstance(given, list):
        for index, item in enumerate(given):
            yield from ([*given[:index], small, *given[index + 1 :]] for small in _smaller(item))
    elif isinstance(given, dict):
        for name in given:
            yield {key: value for key, value in given.items() if key != name}
        yield from given.values()
        for name, value in given.items():
            yield from ({**given, name: small} for small in _smaller(value))
    elif isinstance(given, int | float) and not isinstance(given, bool) and given not in (0, 1):
        yield from (0, 1)
