"""A warning of a rule, and the positions of a route's options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.routing.route import Route


class Finding(NamedTuple):
    """Something in the file that is allowed but probably a mistake."""

    code: Code
    span: Span
    message: str
    hint: str = ""


class OptionSpans:
    """Finds the positions of the options of routes. `root` is the root of the file."""

    def __init__(self, root: YamlNode) -> None:
        self.root = root

    def group(self, route: Route) -> Span:
        """Return the span of a route's name."""
        return self.root.name_at(["routes", route.key, "consumers", route.group])

    def handler(self, route: Route) -> Span:
        """Return the span of the path of a route's handler."""
        return self.root.at(["routes", route.key, "consumers", route.group, "handler"]).span

    def given(self, route: Route, *option: str) -> Span | None:
        """Return the span of an option: in its consumer, else in `defaults`, else None."""
        for path in (["routes", route.key, "consumers", route.group, *option], ["defaults", *option]):
            if self.root.get(path) is not None:
                return self.root.span_at(path)
        return None

    def nearest(self, route: Route, *option: str) -> Span:
        """Return the span of an option, else of the option that contains it, else of the route."""
        for length in range(len(option), 0, -1):
            if (span := self.given(route, *option[:length])) is not None:
                return span
        return self.group(route)


def either(names: Iterable[str]) -> str:
    """Return the names as a text such as "`a` or `b`", sorted."""
    return " or ".join(f"`{name}`" for name in sorted(names))
