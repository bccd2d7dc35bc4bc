"""A warning that a rule found, and the route that a rule looks at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import Node
from abe_router.routing.route import Route


class Finding(NamedTuple):
    """Something that is allowed and most likely not meant, at a place in the file."""

    code: Code
    span: Span
    message: str
    hint: str = ""


class Options:
    """Finds where the file gives the options of its routes. `root` is the root of the file."""

    def __init__(self, root: Node) -> None:
        self.root = root

    def group(self, route: Route) -> Span:
        """Return the place of a route's name."""
        return self.root.name_at(["routes", route.key, "consumers", route.group])

    def given(self, route: Route, *option: str) -> Span | None:
        """Return where an option of a route is given: by its consumer, else by `defaults`, else None."""
        for path in (["routes", route.key, "consumers", route.group, *option], ["defaults", *option]):
            if self.root.get(path) is not None:
                return self.root.span_at(path)
        return None

    def nearest(self, route: Route, *option: str) -> Span:
        """Return where an option is given, or the option that it is a part of, or else the route."""
        for length in range(len(option), 0, -1):
            if (span := self.given(route, *option[:length])) is not None:
                return span
        return self.group(route)


def either(names: Iterable[str]) -> str:
    """Return some names as `one` or `another`, sorted."""
    return " or ".join(f"`{name}`" for name in sorted(names))
