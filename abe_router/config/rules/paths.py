"""Paths of the file that no message of a key can have, and paths that the schemas of the key do not name.

They are paths of `id`, of `order_by`, of the members that `when` names, and of what a schema marks as
`x-sensitive`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from time import thread_time
from typing import NamedTuple

from abe_router.config.language.model import FileModel
from abe_router.config.language.pointer import below
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.config.rules.finding import Finding, OptionSpans
from abe_router.messages.pattern import PatternIndex, is_wild, matches
from abe_router.messages.pointer import parse
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.route import Route
from abe_router.schema import Schema
from abe_router.schema.named_paths import NamedPath, named_paths
from abe_router.schema.paths import UNDECIDED, PathAnswer, PathKind, PathSteps, best, shown
from abe_router.text import counted, suggestion

#: Longest time for all paths of a file, in seconds of this thread's processor time. Later ones are possible.
MAX_TIME = 1.0
#: The types of JSON Schema that an id may have.
_ID_TYPES = frozenset({"string", "integer", "number"})
#: The hint for a path that is not named.
_UNNAMED = "correct it, or name it in the schema"


class _Judged(NamedTuple):
    """What the schemas of a key say about a path. `schema` is the one that decides, None if none does."""

    key: str
    answer: PathAnswer
    schema: Schema | None


class PathRules:
    """Finds the paths of a file that are wrong. Each method is about one option."""

    def __init__(
        self, file: FileModel, routes: Sequence[Route], bindings: Sequence[SchemaBinding], root: YamlNode
    ) -> None:
        self._file, self._routes, self._bindings, self._root = file, routes, bindings, root
        self._keys = [key for key in file.routes if not is_wild(key)]
        self._index = PatternIndex((each.pattern, each) for each in bindings)
        self._contracts: dict[str, Mapping[str, Sequence[SchemaBinding]]] = {}
        self._named: dict[Schema, list[NamedPath]] = {}
        self._deadline = thread_time() + MAX_TIME

    def findings(self) -> Iterator[Finding]:
        """Yield the findings about each option that names a path of a payload."""
        if self._bindings:
            yield from self._ids()
            yield from self._orders()
            yield from self._filters()
            yield from self._marks()

    def _ids(self) -> Iterator[Finding]:
        for key, entry in self._file.routes.items():
            if entry is not None and entry.id and entry.id[0] == "/":
                steps, span = parse(entry.id), self._root.span_at(["routes", key, "id"])
                judged = self._judged(key, steps, kinds=_ID_TYPES)
                impossible = [each for each in judged if each.answer.is_impossible]
                # A message without an id is refused, so one such key is enough for a fault.
                hint = "a message without an id is refused"
                yield from _findings(impossible or judged, steps, span, "an id", hint)

    def _orders(self) -> Iterator[Finding]:
        options = OptionSpans(self._root)
        for route in self._routes:
            if route.order_by is not None:
                steps, span = parse(route.order_by), options.nearest(route, "order_by")
                hint = "messages without a value there have no order; `order_by: null` says so"
                yield from _findings(self._judged(route.key, steps), steps, span, "a value", hint)

    def _filters(self) -> Iterator[Finding]:
        for route in self._routes:
            if route.when is None:
                continue
            place: list[str | int] = ["routes", route.key, "consumers", route.group, "when"]
            if self._root.get(place) is None:
                place = ["defaults", "when"]
            for named in self._paths_of(route.when):
                judged = self._judged(route.key, named.steps)
                if any(each.answer.kind in {PathKind.OPEN, PathKind.NAMED} for each in judged):
                    continue  # a filter chooses among the keys of a pattern
                pointer = next(iter(named.pointers), "")
                path = [*place, *below(self._root.at(place), pointer)]
                span = (self._root.name_at if "/properties/" in pointer else self._root.span_at)(path)
                hint = "correct the filter, or the schema"
                yield from _findings(judged, named.steps, span, "a value", hint)

    def _marks(self) -> Iterator[Finding]:
        for binding in self._bindings:
            if not binding.schema.has_sensitive:
                continue
            span = self._root.span_at(["routes", binding.pattern, "schema"])
            for named in self._paths_of(binding.schema):
                if not named.is_sensitive:
                    continue
                judged = self._judged(binding.pattern, named.steps, without=binding)
                # What the schema itself describes need not be described elsewhere.
                excused = {PathKind.OPEN, PathKind.NAMED} | (
                    set() if named.is_bare and is_wild(binding.pattern) else {PathKind.UNNAMED}
                )
                if not any(each.answer.kind in excused for each in judged):
                    hint = f"`{binding.schema.name}` marks it as `x-sensitive`; name what messages have"
                    yield from _findings(judged, named.steps, span, "a value", hint, hint)

    def _paths_of(self, schema: Schema) -> list[NamedPath]:
        if schema not in self._named:
            self._named[schema] = list(named_paths(schema.index()))
        return self._named[schema]

    def _judged(
        self,
        pattern: str,
        steps: PathSteps,
        *,
        kinds: frozenset[str] = frozenset(),
        without: SchemaBinding | None = None,
    ) -> list[_Judged]:
        """Return what the schemas of each key of a pattern say about a path, all but that of `without`."""
        found = []
        for key, bindings in self._contracts_of(pattern).items():
            schemas = [each.schema for each in bindings if each is not without]
            if schemas:
                found.append(_Judged(key, *self._together(schemas, steps, kinds)))
            elif without is None:
                found.append(_Judged(key, UNDECIDED, None))
        return found

    def _together(
        self, schemas: Sequence[Schema], steps: PathSteps, kinds: frozenset[str]
    ) -> tuple[PathAnswer, Schema | None]:
        """Return what several schemas say that all apply, and the first that decides."""
        answers = [(schema.path(steps, self._deadline, kinds), schema) for schema in schemas]
        for answer, schema in answers:
            if answer.is_impossible:
                return answer, schema
        whole = best(answer for answer, _ in answers)
        decides = partial(_decides, whole)
        return whole, next((schema for answer, schema in answers if decides(answer)), None)

    def _contracts_of(self, pattern: str) -> Mapping[str, Sequence[SchemaBinding]]:
        """Return the bindings of each key of the file that matches a pattern.

        If there is none, return the bindings that apply to all of its keys, under the pattern itself.
        """
        if pattern not in self._contracts:
            keys = [key for key in self._keys if matches(pattern, key)] if is_wild(pattern) else [pattern]
            covering = [each for each in self._bindings if _covers(each.pattern, pattern)] if not keys else []
            self._contracts[pattern] = {key: self._index.match(key) for key in keys} or {pattern: covering}
        return self._contracts[pattern]


def _decides(whole: PathAnswer, answer: PathAnswer) -> bool:
    return (answer.depth, answer.kind) == (whole.depth, whole.kind)


def _covers(pattern: str, other: str) -> bool:
    """Return whether a pattern certainly matches each key that another pattern matches."""
    return pattern in {other, "#"} or ("#" not in other and matches(pattern, other))


def _findings(
    judged: Sequence[_Judged], steps: PathSteps, span: Span, what: str, hint: str, unnamed: str = _UNNAMED
) -> Iterator[Finding]:
    """Yield a fault if no key can have a path, else a warning about those that cannot or do not name it."""
    wrong = [each for each in judged if each.answer.kind in {PathKind.UNNAMED, PathKind.IMPOSSIBLE}]
    if not wrong:
        return
    key, answer, schema = max(wrong, key=lambda each: each.answer.depth)  # the one that comes closest
    name = schema.name if schema is not None else key
    others = f", as for {counted(len(wrong) - 1, 'other key')}" if len(wrong) > 1 else ""
    if answer.is_impossible:
        message = f"no message of `{key}` has {what} at `{shown(steps)}`: `{name}` {answer.why}{others}"
    else:
        message = (
            f"`{name}` does not name `{shown(steps[: answer.depth + 1])}` in messages of `{key}`{others}"
        )
    refused = all(each.answer.is_impossible for each in judged)
    code = Code.PATH_IMPOSSIBLE if refused else Code.PATH_NOT_NAMED
    step = steps[answer.depth] if answer.depth < len(steps) else None
    close = suggestion(step, answer.names) if step is not None else None
    if close is not None:
        meant = shown([*steps[: answer.depth], close, *steps[answer.depth + 1 :]])
        hint = f"did you mean `{meant}`?"
    elif not answer.is_impossible:
        hint = unnamed
    yield Finding(code, span, message, hint)
