"""The findings of rules, and the positions of options that they point at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.routing.route import Route


class Finding(NamedTuple):
    """A warning about a position in the file: something allowed that is most likely a mistake."""

    code: Code
    span: Span
    message: str
    hint: str = ""


class OptionSpans:
    """Finds the positions of options in the file. `root` is the root of the file."""

    def __init__(self, root: YamlNode) -> None:
        self.root = root

    def group(self, route: Route) -> Span:
        """Return the position of a route's name."""
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
