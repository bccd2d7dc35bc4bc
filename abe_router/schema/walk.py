"""The walk through a value that breaks a schema: it finds every mismatch, one after the other.

The walk has no recursion for nested values, so that the depth of a payload costs no stack: a visit of one
subschema is a generator of mismatches and of further visits, and the walk keeps the visits that are open.
It recurses only to judge alternatives. Many values under one subschema are judged in pieces by the compiled
check, and only what breaks it is visited.

A walk has a budget. It raises `Exhausted` at the deadline, and what it found before then counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from time import thread_time
from typing import Any, NamedTuple

from abe_router.schema.index import SchemaIndex, Subschema
from abe_router.schema.mismatch import Mismatch, Path
from abe_router.schema.validators import Validators

#: Most visits that are open at once. Values are nested less deeply; references without end are not.
MAX_OPEN = 2000
#: Most alternatives within alternatives, each of which takes some stack.
MAX_NESTED = 100
#: Alternatives within alternatives from which on the compiled check judges scalars too.
_DEEP = 3
#: Mismatches of an alternative that are counted to compare it with the others.
MAX_COMPARED = 20
#: Values under one subschema from which on they are judged together, and how many at a time.
_MANY, _LARGE_PIECE, _SMALL_PIECE = 16, 1024, 32
#: Steps between two looks at the clock, each of which takes about as long as a step.
_STEPS_PER_LOOK = 16


#: Steps of a walk that is cheaper than to compile a check.
_SHORT = 300


class _Long(Exception):
    """Raised when a walk that judges takes too many steps."""


class Exhausted(Exception):
    """Raised when a walk is over its budget."""


class Visit(NamedTuple):
    """A value that a subschema applies to. `scope` is the resources on the way, by base, if they matter."""

    where: Subschema
    value: Any
    path: Path
    scope: tuple[str, ...]


#: A subschema and a value by identity, and the scope.
Key = tuple[int, int, tuple[str, ...]]
Found = Iterator[Mismatch | Visit]
#: What walks through one keyword of a visit.
Rule = Callable[["Walk", Visit, str], Found]


class Walk:
    """Looks for what is wrong with a value. `deadline` is in seconds of this thread's processor time.

    `rule_of` returns the rule of a keyword in a draft. `dynamic` says whether any reference is dynamic: then
    the scope of a subschema changes its meaning, and the compiled check cannot be asked about it alone.
    `suspect` is the last part of the value that was seen to be wrong before its mismatches were found.
    """

    def __init__(
        self,
        index: SchemaIndex,
        validators: Validators,
        rule_of: Callable[[str, int], Rule | None],
        deadline: float,
        *,
        dynamic: bool,
    ) -> None:
        self.index, self.validators, self.rule_of = index, validators, rule_of
        self.suspect: Mismatch | None = None
        self._deadline, self._dynamic = deadline, dynamic
        self._steps = self._nested = 0
        self._limit = math.inf
        self._open: set[Key] = set()
        self._valid: dict[Key, bool] = {}
        self._compared: dict[Key, list[list[Mismatch]]] = {}

    def run(self, visit: Visit) -> Iterator[Mismatch]:
        """Yield each mismatch of a visit and of all that follow from it, in the order of the schema."""
        # A reference may lead back to a subschema that is being applied to the same value: it adds nothing.
        known = self._open
        keys = [_key(visit)]
        known.add(keys[0])
        visits = [self._visit(visit)]
        try:
            while visits:
                step = next(visits[-1], None)
                self.tick()
                if step is None:
                    visits.pop()
                    known.discard(keys.pop())
                elif isinstance(step, Mismatch):
                    yield step
                elif (key := _key(step)) not in known and not self._passes(step):
                    if len(visits) >= MAX_OPEN:
                        raise Exhausted
                    visits.append(self._visit(step))
                    keys.append(key)
                    known.add(key)
        finally:
            known.difference_update(keys)

    def _passes(self, visit: Visit) -> bool:
        """Return whether a large value is valid, which spares the walk through it."""
        if self._dynamic or not isinstance(visit.value, dict | list):
            return False
        if len(visit.value) < _MANY or not isinstance(visit.where.schema, dict):
            return False
        self.look()
        return self.validators.every(visit.where, [visit.value]) is True

    def tick(self) -> None:
        """Count a step, and raise Exhausted when the deadline has passed."""
        self._steps += 1
        if self._steps >= self._limit:
            raise _Long
        if self._steps % _STEPS_PER_LOOK == 0:
            self.look()

    def look(self) -> None:
        """Raise Exhausted when the deadline has passed."""
        if thread_time() > self._deadline:
            raise Exhausted

    def _visit(self, visit: Visit) -> Found:
        where = visit.where
        schema = where.schema
        if schema is False:
            yield Mismatch(visit.path, "false", where, visit.value, "no value here")
        if not isinstance(schema, dict):
            return
        alone = where.draft <= 7 and isinstance(schema.get("$ref"), str)
        for keyword in ("$ref",) if alone else schema:
            rule = self.rule_of(keyword, where.draft)
            if rule is not None:
                yield from rule(self, visit, keyword)

    def valid(self, visit: Visit) -> bool:
        """Return whether a value satisfies a subschema."""
        if isinstance(visit.where.schema, bool):
            return visit.where.schema
        key = _key(visit)
        if key not in self._valid:
            if self._dynamic:
                self._valid[key] = self._walked(visit, math.inf)
            else:
                self._valid[key] = self._judged(visit)
        return self._valid[key]

    def _judged(self, visit: Visit) -> bool:
        """Judge by a short walk, and by the compiled check when it gets long: compiling costs much more."""
        if self._nested < _DEEP and not self.validators.has(visit.where):
            try:
                return self._walked(visit, self._steps + _SHORT)
            except _Long:
                if self._steps >= self._limit:
                    raise
        self.look()
        valid = self.validators.every(visit.where, [visit.value])
        return self._walked(visit, math.inf) if valid is None else valid

    def _walked(self, visit: Visit, limit: float) -> bool:
        """Judge by a walk; raise _Long when it takes more steps than the limit."""
        opened, self._open = self._open, set()
        outer, self._limit = self._limit, min(limit, self._limit)
        try:
            return not self._first(visit, 1)
        finally:
            self._open, self._limit = opened, outer

    def _first(self, visit: Visit, most: int) -> list[Mismatch]:
        """Return the first mismatches of a visit, found aside."""
        if self._nested >= MAX_NESTED:
            raise Exhausted
        self._nested += 1
        try:
            return list(islice(self.run(visit), most))
        finally:
            self._nested -= 1

    def suspects(self, visit: Visit, keyword: str, expected: str) -> None:
        """Note that a value is wrong before it is known in which way."""
        if self._nested == 0:
            self.suspect = Mismatch(visit.path, keyword, visit.where, visit.value, expected)

    def below(self, visit: Visit, *steps: str | int) -> Visit:
        """Return the visit of the same value by a subschema at some steps below this one."""
        return visit._replace(where=self.index.below(visit.where, *steps))

    def matches(self, visit: Visit, pattern: str, name: str) -> bool:
        """Return whether a pattern of the schema matches the name of a member."""
        self.look()
        return self.validators.pattern(pattern, visit.where.draft, name)

    def compare(self, visit: Visit, keyword: str) -> list[list[Mismatch]]:
        """Return some mismatches of each alternative that a keyword lists."""
        listed = visit.where.schema[keyword]
        key = (id(listed), id(visit.value), visit.scope)
        if key not in self._compared:
            self._compared[key] = [
                self._first(self.below(visit, keyword, index), MAX_COMPARED) for index in range(len(listed))
            ]
        return self._compared[key]

    def each(self, visit: Visit, where: Subschema, steps: Sequence[str | int], keyword: str) -> Found:
        """Yield a visit of each part at `steps`, or only of the wrong ones where there are many."""
        if where.schema is True:
            return
        for start in range(0, len(steps), _LARGE_PIECE):
            for step in self._wrong(visit, where, steps[start : start + _LARGE_PIECE], keyword):
                yield Visit(where, visit.value[step], Path(visit.path, step), visit.scope)

    def _wrong(
        self, visit: Visit, where: Subschema, steps: Sequence[str | int], keyword: str
    ) -> Iterator[str | int]:
        """Yield the steps to what may be wrong."""
        if self._dynamic or len(steps) < _MANY:
            yield from steps
            return
        self.look()
        values = visit.value
        listed = values[steps.start : steps.stop] if isinstance(steps, range) else [values[s] for s in steps]
        whole = self.validators.every(where, listed)
        if whole is None:
            yield from steps
        elif not whole and len(steps) > _SMALL_PIECE:
            for start in range(0, len(steps), _SMALL_PIECE):
                yield from self._wrong(visit, where, steps[start : start + _SMALL_PIECE], keyword)
        elif not whole:
            for step in steps:
                self.look()
                if not self.validators.every(where, [visit.value[step]]):
                    part = Visit(where, visit.value[step], Path(visit.path, step), visit.scope)
                    self.suspects(part, "", f"a match of the schema under `{keyword}`")
                    yield step


def _key(visit: Visit) -> Key:
    return id(visit.where.schema), id(visit.value), visit.scope
