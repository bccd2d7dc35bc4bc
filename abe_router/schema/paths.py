"""What a schema says about a path into the values that it allows: named, open, not named, or impossible.

A path is impossible only if no valid value has a value there. Each keyword is looked at by itself, and what
it says is combined: all of `allOf` must allow a path, one of `anyOf`. What this cannot decide is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from time import thread_time
from typing import Any, NamedTuple

from abe_router.messages.pointer import INDEX, find, join
from abe_router.schema.index import DYNAMIC_ANCHORS, SchemaIndex, Subschema
from abe_router.schema.validators import Validators
from abe_router.schema.walk import Exhausted
from abe_router.text import counted

#: The steps of a path: tokens of a pointer, and None for any item of an array.
PathSteps = Sequence[str | None]
#: Subschemas between two looks at the clock.
_PER_LOOK = 32


class PathKind(IntEnum):
    """What is known of a path. OPEN: the schema names no members there, so any may be there."""

    OPEN = 0
    UNNAMED = 1
    NAMED = 2
    IMPOSSIBLE = 3


class PathAnswer(NamedTuple):
    """What a schema says about a path.

    `depth` is the number of steps that it names. `why` says why a path is impossible, as the end of a
    sentence about the schema. `names` are the members that it names instead of the next step.
    """

    kind: PathKind
    depth: int
    why: str = ""
    names: frozenset[str] = frozenset()

    @property
    def is_impossible(self) -> bool:
        """Whether no valid value has a value at the path."""
        return self.kind is PathKind.IMPOSSIBLE


#: The answer of a schema that decides nothing.
UNDECIDED = PathAnswer(PathKind.OPEN, 0)


def shown(steps: PathSteps) -> str:
    """Return a path as a pointer, with `*` for any item."""
    return join("*" if step is None else step for step in steps)


class PathSearch:
    """Looks for one path in a schema. `kinds` are the JSON types that are wanted at its end, empty for any.

    `deadline` is in seconds of this thread's processor time.
    """

    def __init__(
        self,
        index: SchemaIndex,
        validators: Validators,
        steps: PathSteps,
        kinds: frozenset[str],
        deadline: float,
    ) -> None:
        self._index, self._validators, self._deadline = index, validators, deadline
        self._steps, self._kinds = steps, kinds
        self._ticks = 0
        #: None stands for a subschema that is being looked at. A reference back to it adds nothing.
        self._known: dict[tuple[int, int], PathAnswer | None] = {}

    def answer(self) -> PathAnswer:
        """Return what the schema says; raise Exhausted when the deadline has passed."""
        return self._at(self._index.root, 0)

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % _PER_LOOK == 0 and thread_time() > self._deadline:
            raise Exhausted

    def _at(self, sub: Subschema, depth: int) -> PathAnswer:
        """Return what a subschema says that applies to the value after `depth` steps."""
        if sub.schema is False:
            return self._impossible(depth, f"does not allow `{shown(self._steps[:depth])}`")
        if not isinstance(sub.schema, dict):
            return self._silent(depth)
        key = (id(sub.schema), depth)
        if key not in self._known:
            self._tick()
            self._known[key] = None
            self._known[key] = _all(self._keywords(sub, depth))
        return self._known[key] or PathAnswer(PathKind.OPEN, depth)

    def _silent(self, depth: int) -> PathAnswer:
        return PathAnswer(PathKind.NAMED if depth == len(self._steps) else PathKind.OPEN, depth)

    def _impossible(self, depth: int, why: str, names: Iterable[str] = ()) -> PathAnswer:
        return PathAnswer(PathKind.IMPOSSIBLE, depth, why, frozenset(names))

    def _keywords(self, sub: Subschema, depth: int) -> Iterator[PathAnswer]:
        """Yield what each keyword says. A value must satisfy all of them."""
        schema, below = sub.schema, self._index.below
        if isinstance(schema.get("$ref"), str):
            yield self._reference(sub, "$ref", depth)
            if sub.draft <= 7:
                return
        for keyword, draft in (("$dynamicRef", 2020), ("$recursiveRef", 2019)):
            if sub.draft == draft and isinstance(schema.get(keyword), str):
                yield self._reference(sub, keyword, depth)
        yield self._own(sub, depth)
        for number in range(len(list_of(schema, "allOf"))):
            yield self._at(below(sub, "allOf", number), depth)
        for keyword in ("anyOf", "oneOf"):
            if listed := list_of(schema, keyword):
                yield _any([self._at(below(sub, keyword, number), depth) for number in range(len(listed))])
        if sub.draft >= 7 and "if" in schema and schema.keys() & {"then", "else"}:
            branches = [
                self._at(below(sub, name), depth) if name in schema else self._silent(depth)
                for name in ("then", "else")
            ]
            yield _any([_all([self._at(below(sub, "if"), depth), branches[0]]), branches[1]])
        if "not" in schema:
            yield _maybe(self._at(below(sub, "not"), depth))
        values = [
            *list_of(schema, "enum"),
            *([schema["const"]] if sub.draft >= 6 and "const" in schema else []),
        ]
        if values:
            yield _any([self._in(value, depth) for value in values])

    def _reference(self, sub: Subschema, keyword: str, depth: int) -> PathAnswer:
        reference = sub.schema[keyword]
        target = self._index.resolve(sub.base, reference)
        if target is None:  # a meta-schema
            return PathAnswer(PathKind.OPEN, depth)
        targets = [target]
        if keyword in DYNAMIC_ANCHORS:  # whichever way leads to it
            targets += self._index.dynamic_anchors(reference.rpartition("#")[2] or True)
        return _any([self._at(each, depth) for each in targets])

    def _in(self, value: Any, depth: int) -> PathAnswer:
        """Return whether a value that `enum` or `const` lists has the rest of the path."""
        self._tick()
        rest = self._steps[depth:]
        if None in rest:
            return PathAnswer(PathKind.OPEN, depth)
        try:
            found = find(value, join(str(step) for step in rest))
        except LookupError:
            return self._impossible(depth, f"lists values that do not have `{shown(self._steps)}`")
        if self._kinds and not _kinds_of(found) & self._kinds:
            return self._impossible(len(self._steps), "lists values of another type there")
        return PathAnswer(PathKind.NAMED, len(self._steps))

    def _own(self, sub: Subschema, depth: int) -> PathAnswer:
        """Return what the keywords say that apply to objects and arrays, or to the end of the path."""
        types = _types(sub.schema)
        if depth == len(self._steps):
            if self._kinds and types and not types & self._kinds:
                said = " or ".join(f"`{each}`" for each in sorted(types))
                return self._impossible(depth, f"says that it is {said}, not text or a number")
            return self._silent(depth)
        step, place = self._steps[depth], shown(self._steps[:depth]) or "the payload"
        forms = []
        if step is not None and (not types or "object" in types):
            forms.append(_all(self._member(sub, step, depth)))
        if (not types or "array" in types) and (step is None or INDEX.fullmatch(step)):
            forms.append(_all(self._item(sub, None if step is None else int(step), depth)))
        if forms:
            return _any(forms)
        said = " or ".join(f"`{each}`" for each in sorted(types))
        index = f", so write an index such as `{place}/0`" if types == {"array"} else ""
        return self._impossible(depth, f"says that {f'`{place}`' if depth else place} is {said}{index}")

    def _member(self, sub: Subschema, name: str, depth: int) -> Iterator[PathAnswer]:
        """Yield what the keywords for objects say about a member."""
        schema, below = sub.schema, self._index.below
        named, required = map_of(schema, "properties"), list_of(schema, "required")
        names = frozenset([*named, *required])
        absent = self._impossible(depth, f"does not allow `{shown(self._steps[: depth + 1])}`", names)
        if name in required:
            yield self._silent(depth + 1)
        if name in named:
            yield self._at(below(sub, "properties", name), depth + 1)
        matching = self._matching(sub, name)
        for pattern, certain in matching.items():
            answer = self._at(below(sub, "patternProperties", pattern), depth + 1)
            yield answer if certain else _maybe(answer)
        rest = schema.get("additionalProperties", True)
        if name not in named and not matching and rest is not True:
            yield absent if rest is False else self._further(sub, "additionalProperties", depth)
        elif name not in names and not matching:
            yield PathAnswer(PathKind.UNNAMED if names else PathKind.OPEN, depth, names=names)
        if _number(schema, "maxProperties") == 0 or self._forbids_name(sub, name):
            yield absent
        for keyword, first in (("dependentSchemas", 2019), ("dependencies", 4)):
            for trigger in map_of(schema, keyword) if sub.draft >= first else ():
                answer = self._at(below(sub, keyword, trigger), depth)
                yield answer if trigger == name else _maybe(answer)
        further = schema.get("unevaluatedProperties", True) if sub.draft >= 2019 else True
        if further is False:
            together = list(self._index.in_place([sub]))
            if not any(self._may_evaluate(each, sub, name) for each in together):
                yield absent._replace(
                    names=names.union(*(map_of(each.schema, "properties") for each in together))
                )
        elif further is not True:
            yield _maybe(self._further(sub, "unevaluatedProperties", depth))

    def _further(self, sub: Subschema, keyword: str, depth: int) -> PathAnswer:
        """Return what the schema of all further members says. An empty one describes none."""
        if sub.schema[keyword] == {}:
            return PathAnswer(PathKind.OPEN, depth)
        return self._at(self._index.below(sub, keyword), depth + 1)

    def _matching(self, sub: Subschema, name: str) -> dict[str, bool]:
        """Return the patterns of members that may match a name, each with whether it certainly does."""
        found: dict[str, bool] = {}
        for pattern in map_of(sub.schema, "patternProperties"):
            self._tick()
            if (answer := self._validators.matches(pattern, sub.draft, name)) is not False:
                found[pattern] = answer is True
        return found

    def _forbids_name(self, sub: Subschema, name: str) -> bool:
        """Return whether `propertyNames` certainly refuses a name, by its own keywords."""
        said = sub.schema.get("propertyNames") if sub.draft >= 6 else None
        if said is False:
            return True
        if not isinstance(said, dict) or "$ref" in said:
            return False
        if ("enum" in said and name not in said["enum"]) or ("const" in said and name != said["const"]):
            return True
        pattern = said.get("pattern")
        return isinstance(pattern, str) and self._validators.matches(pattern, sub.draft, name) is False

    def _may_evaluate(self, each: Subschema, owner: Subschema, name: str) -> bool:
        """Return whether a subschema that applies in place may evaluate a member."""
        self._tick()
        schema = each.schema
        others = schema.keys() & {"additionalProperties", "unevaluatedProperties"}
        if others - ({"unevaluatedProperties"} if each is owner else set()) or self._leads_out(each):
            return True
        return name in map_of(schema, "properties") or bool(self._matching(each, name))

    def _leads_out(self, sub: Subschema) -> bool:
        reference = sub.schema.get("$ref")
        return isinstance(reference, str) and self._index.resolve(sub.base, reference) is None

    def _item(self, sub: Subschema, number: int | None, depth: int) -> Iterator[PathAnswer]:
        """Yield what the keywords for arrays say about an item, or about any item."""
        schema, below = sub.schema, self._index.below
        listing, rest = ("prefixItems", "items") if sub.draft >= 2020 else ("items", "additionalItems")
        if sub.draft < 2020 and not isinstance(schema.get("items"), list):
            rest = "items"
        count = len(list_of(schema, listing))
        if count and number is None:
            yield _any([self._at(below(sub, listing, n), depth + 1) for n in range(count)])
        elif number is not None and number < count:
            yield self._at(below(sub, listing, number), depth + 1)
        elif schema.get(rest) is False:
            yield self._impossible(depth, f"allows at most {counted(count, 'item')} there")
        elif rest in schema:
            yield self._at(below(sub, rest), depth + 1)
        else:
            yield PathAnswer(PathKind.OPEN, depth)
        most = _number(schema, "maxItems")
        if most is not None and (number or 0) >= most:
            yield self._impossible(depth, f"allows at most {most:g} items there")
        if sub.draft >= 6 and "contains" in schema:
            yield _maybe(self._at(below(sub, "contains"), depth + 1))
        if sub.draft >= 2019 and schema.get("unevaluatedItems") is False and number is not None:
            if not any(self._may_hold(each, sub, number) for each in self._index.in_place([sub])):
                yield self._impossible(depth, "allows no such item")
        elif sub.draft >= 2019 and "unevaluatedItems" in schema:
            yield _maybe(self._at(below(sub, "unevaluatedItems"), depth + 1))

    def _may_hold(self, each: Subschema, owner: Subschema, number: int) -> bool:
        """Return whether a subschema that applies in place may evaluate an item."""
        schema = each.schema
        others = schema.keys() & {"additionalItems", "contains", "unevaluatedItems"}
        if others - ({"unevaluatedItems"} if each is owner else set()) or self._leads_out(each):
            return True
        listed = max(len(list_of(schema, "prefixItems")), len(list_of(schema, "items")))
        return number < listed or ("items" in schema and not isinstance(schema["items"], list))


def best(answers: Iterable[PathAnswer]) -> PathAnswer:
    """Return the answer that names most of the path, with the names that all of its kind give instead."""
    listed = list(answers)
    first = max(listed, key=lambda each: (each.depth, each.kind), default=UNDECIDED)
    names = frozenset().union(*(each.names for each in listed if each.depth == first.depth))
    return first._replace(names=names)


def _all(answers: Iterable[PathAnswer]) -> PathAnswer:
    """Return the answer of several constraints that all hold."""
    listed = list(answers)
    forbidden = [each for each in listed if each.is_impossible]
    return forbidden[0] if forbidden else best(listed)


def _any(answers: Iterable[PathAnswer]) -> PathAnswer:
    """Return the answer of several constraints of which at least one holds."""
    listed = list(answers)
    return best([each for each in listed if not each.is_impossible] or listed)


def _maybe(answer: PathAnswer) -> PathAnswer:
    """Return the answer of a constraint that need not hold."""
    return PathAnswer(PathKind.OPEN, 0) if answer.is_impossible else answer


def list_of(schema: dict[str, Any], keyword: str) -> list[Any]:
    """Return the list that a keyword has, an empty one without it."""
    value = schema.get(keyword)
    return value if isinstance(value, list) else []


def map_of(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    """Return the schemas by name that a keyword has. `dependencies` has lists of names too."""
    value = schema.get(keyword)
    if not isinstance(value, dict):
        return {}
    return {name: sub for name, sub in value.items() if isinstance(sub, dict | bool)}


def _number(schema: dict[str, Any], keyword: str) -> float | None:
    value = schema.get(keyword)
    return value if isinstance(value, int | float) else None


def _types(schema: dict[str, Any]) -> frozenset[str]:
    said = schema.get("type")
    return frozenset([said] if isinstance(said, str) else said if isinstance(said, list) else ())


def _kinds_of(value: Any) -> set[str]:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    name = kinds.get(type(value))
    return {name} if name else {"integer", "number"}
