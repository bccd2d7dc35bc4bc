"""The warnings: what a file may contain but is probably a mistake."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from abe_router.backend import Features
from abe_router.config.language.model import FileModel
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.config.rules.batch import batch_findings
from abe_router.config.rules.cycles import cycles
from abe_router.config.rules.finding import Finding, OptionSpans
from abe_router.config.rules.handlers import handler_findings
from abe_router.config.rules.ids import id_findings, shared_id_findings
from abe_router.config.rules.paths import PathRules
from abe_router.messages.pattern import is_wild, overlaps
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.policies import MAX_HOPS
from abe_router.routing.route import Route
from abe_router.text import format_duration, suggestion

#: Most routes of a cycle that are named.
MAX_SHOWN = 10
#: Most threads that one route may take without a warning.
MANY_THREADS = 100


class Lint:
    """Finds probable mistakes in the routes of a file. Each method is one rule.

    A finding that `defaults` causes is reported once, at `defaults`.
    """

    def __init__(
        self, file: FileModel, routes: Sequence[Route], bindings: Sequence[SchemaBinding], root: YamlNode
    ) -> None:
        self._file, self._routes, self._bindings = file, routes, bindings
        self._root, self._options = root, OptionSpans(root)

    def findings(self, features: Features | None) -> Iterator[Finding]:
        """Yield the warnings. `features` are those of the backend, None if they are unknown."""
        for route in self._routes:
            yield from self._retry(route)
            yield from self._threads(route)
            yield from self._drain(route)
            yield from handler_findings(route, self._options)
            yield from batch_findings(route, self._options)
        if features is not None:
            yield from self._backend(features)
        yield from self._unchecked()
        yield from self._overlaps()
        yield from self._cycles()
        if not self._root.at(["routes"]).parts:  # in the file, so that a key with a fault counts
            yield Finding(Code.NOTHING_ROUTED, self._root.name_at(["routes"]), "the file has no route")
        yield from id_findings(self._file, self._bindings, features, self._root)
        yield from shared_id_findings(self._routes, self._root)
        yield from PathRules(self._file, self._routes, self._bindings, self._root).findings()

    def _cycles(self) -> Iterator[Finding]:
        for cycle in cycles(self._routes):
            first, whole = cycle[0], [f"`{route.name}`" for route in (*cycle, cycle[0])]
            path = " -> ".join(
                whole if len(whole) <= MAX_SHOWN else [*whole[: MAX_SHOWN - 2], "…", whole[-1]]
            )
            message = f"messages that are emitted here return to this route: {path}"
            hint = f"a message that passes {MAX_HOPS} handlers in a row becomes a dead letter"
            span = self._root.span_at(["routes", first.key, "consumers", first.group, "emit"])
            yield Finding(Code.CYCLE, span, message, hint)

    def _retry(self, route: Route) -> Iterator[Finding]:
        retry = route.retry
        if retry.attempts == 1:
            return
        span = self._options.given(route, "max_deliveries")
        if span is not None and route.delivery_limit < retry.attempts:
            message = (
                f"`max_deliveries` of {route.delivery_limit} ends a message before attempt {retry.attempts}"
            )
            hint = f"write {retry.attempts} or more, and leave room for deliveries that a crash interrupts"
            yield Finding(Code.RETRY_WINDOW, span, message, hint)
        if retry.initial > retry.max:
            span = self._options.given(route, "retry", "initial") or self._options.given(
                route, "retry", "max"
            )
            longest = format_duration(retry.max)
            message = f"`initial` is {format_duration(retry.initial)}, which is longer than `max`, {longest}"
            hint = "raise `max` or lower `initial`"
            yield Finding(Code.RETRY_WINDOW, span or self._options.group(route), message, hint)
        span = self._options.given(route, "retry", "factor")
        if span is not None and retry.factor < 1:
            message = f"a factor of {retry.factor:g} makes each delay shorter than the one before"
            yield Finding(Code.RETRY_WINDOW, span, message, "write 1 for equal delays, 2 to double them")

    def _threads(self, route: Route) -> Iterator[Finding]:
        span = self._options.given(route, "concurrency")
        if span is not None and not route.handler.is_async and route.concurrency > MANY_THREADS:
            path, asked = route.handler.path, route.concurrency
            message = f"`{path}` is not async: its calls take up to {asked} threads of each worker"
            hint = f"make it `async def`, or lower the concurrency to {MANY_THREADS}"
            yield Finding(Code.TOO_MANY_THREADS, span, message, hint)

    def _drain(self, route: Route) -> Iterator[Finding]:
        span = self._options.given(route, "timeout") or self._options.given(route, "drain")
        if span is not None and route.timeout > route.drain:
            timeout, drain = format_duration(route.timeout), format_duration(route.drain)
            message = (
                f"a handler may take {timeout}, but a stop waits only {drain}; interrupted messages run again"
            )
            yield Finding(Code.TIMEOUT_OVER_DRAIN, span, message, f"write `drain: {timeout}`")

    def _backend(self, features: Features) -> Iterator[Finding]:
        lacks: dict[str, None] = {}
        for route in self._routes:
            for option, why in _in_vain(route, features):
                if (span := self._options.given(route, option)) is not None:
                    yield Finding(Code.BACKEND_CANNOT, span, f"`{option}` has no effect: the backend {why}")
                else:
                    lacks[why] = None
            if not features.groups and self._has_company(route):
                message = "the backend has no groups: only one of several consumers gets a message"
                yield Finding(Code.BACKEND_CANNOT, self._options.group(route), message)
        if lacks:
            backend = self._root.get(["backend"])
            message = f"the backend {', '.join(lacks)}: options that need this have no effect"
            yield Finding(Code.BACKEND_CANNOT, backend.span if backend else Span(), message)

    def _has_company(self, route: Route) -> bool:
        return any(other is not route and overlaps(other.key, route.key) for other in self._routes)

    def _unchecked(self) -> Iterator[Finding]:
        # Of the file itself, so that a key whose schema has a fault counts.
        entries = self._root.at(["routes"]).parts
        checked = [str(key) for key, node in entries.items() if node.get(["schema"]) is not None]
        for key, entry in self._file.routes.items():
            if entry is None or entry.schema_ or not entry.consumers or not is_wild(key):
                continue
            if not any(overlaps(key, other) for other in checked):
                message = f"no schema checks the messages of `{key}`: it overlaps no key that has a schema"
                span = self._root.name_at(["routes", key])
                yield Finding(Code.UNCHECKED_PATTERN, span, message, self._meant(key))

    def _meant(self, pattern: str) -> str:
        """Return the hint for an unchecked pattern: a similar pattern, or else to add a schema."""
        first, dot, rest = pattern.partition(".")
        known = {key.partition(".")[0] for key in self._file.routes if not is_wild(key)}
        close = None if first in known else suggestion(first, known)
        return (
            f"did you mean `{close}{dot}{rest}`?"
            if close
            else "add a `schema` to it, or to the keys that it matches"
        )

    def _overlaps(self) -> Iterator[Finding]:
        groups: dict[str, list[Route]] = defaultdict(list)
        wild: dict[str, list[Route]] = defaultdict(list)
        for route in self._routes:
            # Two keys never overlap, and most routes are of keys.
            before = groups[route.group] if is_wild(route.key) else wild[route.group]
            met = next((other for other in before if overlaps(other.key, route.key)), None)
            if met is not None:
                message = f"group `{route.group}` consumes `{met.key}` too, which overlaps `{route.key}`"
                hint = "a message that matches both is handled twice, once by each"
                yield Finding(Code.OVERLAPPING_GROUP, self._options.group(route), message, hint)
            groups[route.group].append(route)
            if is_wild(route.key):
                wild[route.group].append(route)


#: Whether a route uses an option that some backends cannot carry out.
_USES: Mapping[str, Callable[[Route], bool]] = {
    "retry": lambda route: route.retry.attempts > 1,
    "lease": lambda route: True,  # noqa: ARG005  every route has one
    "max_deliveries": lambda route: route.max_deliveries is not None,
    "dead_letter": lambda route: route.dead_letter,
    "order_by": lambda route: route.order_by is not None,
    "start": lambda route: 0 < route.start < math.inf,
}


def _in_vain(route: Route, features: Features) -> Iterator[tuple[str, str]]:
    """Yield the options of a route that have no effect, and what the backend does instead."""
    for option, why in features.without_effect().items():
        if option in _USES and _USES[option](route):
            yield option, why
