"""What is allowed and still most likely not meant: the warnings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from abe_router.backend import Features
from abe_router.config.language.model import File
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import Node
from abe_router.config.rules.batch import batch_findings
from abe_router.config.rules.contradiction import contradictions
from abe_router.config.rules.cycle import circles
from abe_router.messages.pattern import is_wild, overlaps
from abe_router.routing.handler import THREADS
from abe_router.routing.policies import MAX_HOPS
from abe_router.routing.route import Route
from abe_router.text import format_duration, suggestion

#: Most contradictions told of one handler.
MOST_CONTRADICTIONS = 5


class Lint:
    """Looks at the routes of a file, one rule a method; what `defaults` cause is told there, once."""

    def __init__(self, file: File, routes: Sequence[Route], root: Node, faults: Faults) -> None:
        self._file, self._routes, self._root, self._faults = file, routes, root, faults

    def run(self, features: Features | None) -> None:
        """Add the warnings; `features` are those of the backend, None if it is not known."""
        for route in self._routes:
            self._retry(route)
            self._threads(route)
            self._drain(route)
            self._type(route)
            for code, option, message, hint in batch_findings(route):
                span = self._given(route, *option) or self._given(route, "batch") or self._group(route)
                self._warn(code, message, span, hint)
        if features is not None:
            self._backend(features)
        self._unchecked()
        self._overlaps()
        for circle in circles(self._routes):
            way = " -> ".join(f"`{route.name}`" for route in (*circle, circle[0]))
            message = f"what is emitted here comes back: {way}"
            hint = f"a message ends among the dead letters after {MAX_HOPS} handlers in a row"
            first = circle[0]
            span = self._root.span_at(["routes", first.key, "consumers", first.group, "emit"])
            self._warn(Code.CIRCLE, message, span, hint)
        if not self._file.routes:
            self._warn(Code.NOTHING_ROUTED, "nothing is routed", self._root.name_at(["routes"]))

    def _warn(self, code: Code, message: str, span: Span, hint: str = "") -> None:
        self._faults.add(code, message, span, hint=hint)

    def _group(self, route: Route) -> Span:
        return self._root.name_at(["routes", route.key, "consumers", route.group])

    def _given(self, route: Route, *option: str) -> Span | None:
        """Return where an option of a route is given: by its consumer, else by the defaults, else None."""
        for path in (["routes", route.key, "consumers", route.group, *option], ["defaults", *option]):
            if self._root.get(path) is not None:
                return self._root.span_at(path)
        return None

    def _retry(self, route: Route) -> None:
        retry = route.retry
        if retry.attempts == 1:
            return
        span = self._given(route, "max_deliveries")
        if span is not None and route.delivery_limit < retry.attempts:
            message = f"`max_deliveries` of {route.delivery_limit} ends it before attempt {retry.attempts}"
            hint = f"make it {retry.attempts} or more, with room for deliveries that a crash cut short"
            self._warn(Code.RETRY_WINDOW, message, span, hint)
        if retry.initial > retry.max:
            span = self._given(route, "retry", "initial") or self._given(route, "retry", "max")
            longest = format_duration(retry.max)
            message = f"the first delay, {format_duration(retry.initial)}, is over the longest, {longest}"
            hint = "`max` wins: raise it, or lower `initial`"
            self._warn(Code.RETRY_WINDOW, message, span or self._group(route), hint)
        span = self._given(route, "retry", "factor")
        if span is not None and retry.factor < 1:
            message = f"a factor of {retry.factor:g} makes each delay shorter than the last"
            self._warn(Code.RETRY_WINDOW, message, span, "write 1 for equal delays, 2 to double them")

    def _threads(self, route: Route) -> None:
        span = self._given(route, "concurrency")
        if span is not None and not route.handler.is_async and route.concurrency > THREADS:
            path, asked = route.handler.path, route.concurrency
            message = f"`{path}` is not async: of it at most {THREADS} run at once, not {asked}"
            hint = f"make it `async def`, or the concurrency {THREADS} or less"
            self._warn(Code.TOO_MANY_THREADS, message, span, hint)

    def _drain(self, route: Route) -> None:
        span = self._given(route, "timeout") or self._given(route, "drain")
        if span is not None and route.timeout > route.drain:
            timeout, drain = format_duration(route.timeout), format_duration(route.drain)
            message = f"a handler may take {timeout}, but a stop waits {drain}: what is cut off runs again"
            self._warn(Code.TIMEOUT_OVER_DRAIN, message, span, f"write `drain: {timeout}`")

    def _type(self, route: Route) -> None:
        told = list(islice(contradictions(route), MOST_CONTRADICTIONS))
        if told and (typed := route.handler.payload_type):
            span = self._root.at(["routes", route.key, "consumers", route.group, "handler"]).span
            message = f"`{route.handler.path}` takes `{typed.name}`, and the schema contradicts it"
            hint = "what the schema lets in but the type does not ends among the dead letters"
            self._warn(Code.TYPE_CONTRADICTED, f"{message} {'; '.join(told)}", span, hint)

    def _backend(self, features: Features) -> None:
        lacks: dict[str, None] = {}
        for route in self._routes:
            for option, why in _in_vain(route, features):
                if (span := self._given(route, option)) is not None:
                    self._warn(Code.BACKEND_CANNOT, f"`{option}` is in vain: the backend {why}", span)
                else:
                    lacks[why] = None
            if not features.groups and self._has_company(route):
                message = "the backend has no groups: of several consumers only one gets a message"
                self._warn(Code.BACKEND_CANNOT, message, self._group(route))
        if lacks:
            backend = self._root.get(["backend"])
            message = f"the backend {', '.join(lacks)}: what relies on it is in vain"
            self._warn(Code.BACKEND_CANNOT, message, backend.span if backend else Span())

    def _has_company(self, route: Route) -> bool:
        return any(other is not route and overlaps(other.key, route.key) for other in self._routes)

    def _unchecked(self) -> None:
        checked = [key for key, entry in self._file.routes.items() if entry is not None and entry.schema_]
        for key, entry in self._file.routes.items():
            if entry is None or entry.schema_ or not entry.consumers or not is_wild(key):
                continue
            if not any(overlaps(key, other) for other in checked):
                message = f"no schema checks what `{key}` receives: it meets no key that has one"
                span = self._root.name_at(["routes", key])
                self._warn(Code.UNCHECKED_PATTERN, message, span, self._meant(key))

    def _meant(self, pattern: str) -> str:
        """Return a hint at a pattern that begins like a known key, or at a schema of its own."""
        first, dot, rest = pattern.partition(".")
        known = {key.partition(".")[0] for key in self._file.routes if not is_wild(key)}
        close = None if first in known else suggestion(first, known)
        return f"did you mean `{close}{dot}{rest}`?" if close else "give it a `schema`, or its keys"

    def _overlaps(self) -> None:
        groups: dict[str, list[Route]] = defaultdict(list)
        wild: dict[str, list[Route]] = defaultdict(list)
        for route in self._routes:
            # Two keys never overlap, and most routes are of keys.
            before = groups[route.group] if is_wild(route.key) else wild[route.group]
            met = next((other for other in before if overlaps(other.key, route.key)), None)
            if met is not None:
                message = f"group `{route.group}` consumes `{met.key}` too, which overlaps `{route.key}`"
                hint = "they share nothing: what matches both is handled by both"
                self._warn(Code.OVERLAPPING_GROUP, message, self._group(route), hint)
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
