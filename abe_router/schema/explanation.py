"""How a value breaks a schema, in words, within a budget of time and text.

The compiled check of jsonschema-rs decides whether a value is valid; an explanation only says why it is not.
So an explanation may be incomplete, and it says when it is. It never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import thread_time
from typing import Any, TypeVar

import jsonschema_rs

from abe_router.errors import Violation
from abe_router.messages.pointer import parse
from abe_router.schema.index import SchemaIndex
from abe_router.schema.keywords import rule_of
from abe_router.schema.mismatch import Mismatch, Path, found
from abe_router.schema.paths import UNDECIDED, PathAnswer, PathSearch, PathSteps
from abe_router.schema.sensitive import MASKED, Sensitivity
from abe_router.schema.validators import Validators
from abe_router.schema.walk import Exhausted, Visit, Walk

#: Longest time to look for mismatches, to describe them, and to mask a value, in seconds of this thread's
#: processor time.
MAX_SEARCH, MAX_DESCRIPTION, MAX_MASKING = 0.025, 0.01, 0.05
#: Most violations of one value, and most characters of their pointers. A pointer may be as long as a payload.
MAX_VIOLATIONS, MAX_TEXT = 1000, 1024 * 1024

#: What an incomplete explanation says of itself.
MORE = "there are more violations"
UNFINISHED = "there may be more violations: looking for them takes too long"
NOT_DESCRIBED = "what is wrong could not be described in full"

_T = TypeVar("_T")


class Explainer:
    """Explains values that break one schema.

    `documents` are its parsed documents by URI, `base` is the URI of its own, and `folder` that of the folder
    of schemas, with a trailing slash. `size` is the size of all the documents, in bytes.
    """

    def __init__(
        self,
        documents: Mapping[str, Any],
        base: str,
        folder: str,
        registry: jsonschema_rs.Registry,
        *,
        formats: bool,
        size: int,
    ) -> None:
        self._documents, self._base, self._folder = documents, base, folder
        self._validators = Validators(registry, formats=formats, size=size)
        self._parts: tuple[SchemaIndex, Sensitivity, bool] | None = None
        self._lock = Lock()  # threads share a schema, and with it what is compiled for its explanations

    def explain(self, value: Any) -> tuple[Violation, ...]:
        """Return what is wrong with a value that the compiled check refuses: at least one violation."""
        try:
            with self._lock:
                return self._explain(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001  a message without a reason is worse than any of them
            return (_undescribed(value, NOT_DESCRIBED),)

    def has_sensitive(self) -> bool:
        """Return whether the schema marks anything as sensitive; also if that cannot be found out."""
        try:
            with self._lock:
                return self._prepared()[1].any
        except Exception:  # noqa: BLE001  as in `mask`
            return True

    def marks(self, pointer: str) -> bool:
        """Return whether the schema marks the value at a pointer as sensitive; also if it is not known."""
        try:
            with self._lock:
                return self._prepared()[1].marks(parse(pointer))
        except Exception:  # noqa: BLE001  as in `mask`
            return True

    def path(self, steps: PathSteps, kinds: frozenset[str], deadline: float) -> PathAnswer:
        """Return what the schema says about a path, UNDECIDED if that is not found out by the deadline."""
        if thread_time() > deadline:
            return UNDECIDED
        try:
            with self._lock:
                index, _, _ = self._prepared()
                return PathSearch(index, self._validators, steps, kinds, deadline).answer()
        except (Exhausted, RecursionError, LookupError, TypeError, ValueError):
            return UNDECIDED

    def index(self) -> SchemaIndex:
        """Return a new index of the documents, which no other thread uses."""
        return SchemaIndex(self._documents, self._base)

    def name_of(self, uri: str) -> str:
        """Return the path of a document relative to the folder, or its URI if it is not a file of it."""
        return uri.removeprefix(self._folder)

    def mask(self, value: Any) -> Any:
        """Return a value with MASKED in place of what the schema calls sensitive.

        If that cannot be found out in bounded time, the whole value is masked. It raises nothing.
        """
        return self._within(MASKED, lambda sensitivity, look: sensitivity.mask(value, look))

    def sensitive_parts(self, value: Any) -> Sequence[Any] | None:
        """Return the parts that the schema calls sensitive, None if that cannot be found out in bounded time.

        It is None too if a part does not have its shape, and may hide what is sensitive. It raises nothing.
        """
        return self._within(None, lambda sensitivity, look: sensitivity.parts(value, look))

    def names(self) -> frozenset[str]:
        """Return the names of members that the schema writes itself, none if they cannot be found out."""
        return self._within(frozenset(), lambda sensitivity, _look: sensitivity.names)

    def _within(self, otherwise: _T, find: Callable[[Sensitivity, Callable[[], None]], _T]) -> _T:
        """Return what `find` finds in bounded time, else `otherwise`: what hides everything."""
        deadline = thread_time() + MAX_MASKING

        def look() -> None:
            if thread_time() > deadline:
                raise Exhausted

        try:
            with self._lock:
                return find(self._prepared()[1], look)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001  a value that is shown by mistake is worse than any of them
            return otherwise

    def _explain(self, value: Any) -> tuple[Violation, ...]:
        deadline = thread_time() + MAX_SEARCH
        index, sensitivity, dynamic = self._prepared()
        walk = Walk(index, self._validators, rule_of, deadline, dynamic=dynamic)
        mismatches: list[Mismatch] = []
        note = ""
        try:
            for mismatch in walk.run(Visit(index.root, value, Path(), (index.root.base,) if dynamic else ())):
                if len(mismatches) == MAX_VIOLATIONS:
                    note = MORE
                    break
                mismatches.append(mismatch)
        except Exhausted:
            note = UNFINISHED
        except (RecursionError, MemoryError, ArithmeticError, LookupError, TypeError, ValueError):
            note = NOT_DESCRIBED
        if not mismatches and walk.suspect is not None:
            mismatches.append(walk.suspect)
        description = _Description(self._base, self._folder, sensitivity, thread_time() + MAX_DESCRIPTION)
        violations: list[Violation] = []
        characters = 0
        for mismatch in mismatches:
            try:
                violation = description.of(mismatch)
            except Exhausted:
                note = note or UNFINISHED
                break
            characters += len(violation.pointer)
            if violations and characters > MAX_TEXT:
                note = note or MORE
                break
            violations.append(violation)
        if not violations:
            return (_undescribed(value, note or NOT_DESCRIBED),)
        if note:
            first = violations[0]
            violations[0] = Violation(
                first.pointer, first.keyword, first.expected, first.found, first.schema_pointer, note
            )
        return tuple(violations)

    def _prepared(self) -> tuple[SchemaIndex, Sensitivity, bool]:
        if self._parts is None:
            index = SchemaIndex(self._documents, self._base)
            dynamic = any(schema.keys() & {"$dynamicRef", "$recursiveRef"} for schema in index.every())
            self._parts = index, Sensitivity(index, self._validators), dynamic
        return self._parts


def _undescribed(value: Any, note: str) -> Violation:
    """Return the violation of a value of which nothing but its type can be said."""
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return Violation("", "schema", "a value that satisfies it", kinds.get(type(value), "number"), "", note)


class _Description:
    """Turns mismatches into violations, and masks what the schema calls sensitive."""

    def __init__(self, base: str, folder: str, sensitivity: Sensitivity, deadline: float) -> None:
        self._base, self._folder = base, folder
        self._sensitivity, self._deadline = sensitivity, deadline

    def of(self, mismatch: Mismatch) -> Violation:
        """Return a mismatch as a violation; raise Exhausted when there is no time left."""
        self._look()
        path, expected = mismatch.path, mismatch.expected
        masked = self._sensitivity.masked(path, self._look)
        if masked is not None:
            # Below a sensitive value the path itself may be a secret, as the keys of a map are.
            path, what = masked, MASKED
            expected = mismatch.unquoted or expected
        elif mismatch.member is not None:
            member = Path(path, mismatch.member)
            at = self._sensitivity.masked(member, self._look)
            what = MASKED if at is not None else found(mismatch.value[mismatch.member])
            if at is path:  # the names of all members are sensitive
                expected = mismatch.unquoted
            elif self._sensitivity.masks_found(path, mismatch.value, self._look):
                expected, what = mismatch.unquoted or expected, MASKED
        elif self._sensitivity.masks_found(path, mismatch.value, self._look):
            expected, what = mismatch.unquoted or expected, MASKED
        else:
            what = mismatch.found or found(mismatch.value)
            if mismatch.keyword == "propertyNames" and self._masks_name(mismatch):
                expected, what = mismatch.unquoted, MASKED
        location = self._location(mismatch)
        return Violation(path.pointer, mismatch.keyword, expected, what, location)

    def _masks_name(self, mismatch: Mismatch) -> bool:
        return self._sensitivity.masked(Path(mismatch.path, ""), self._look) is mismatch.path

    def _look(self) -> None:
        if thread_time() > self._deadline:
            raise Exhausted

    def _location(self, mismatch: Mismatch) -> str:
        document = mismatch.where.document
        if document == self._base:
            return mismatch.location
        return f"{document.removeprefix(self._folder)}#{mismatch.location}"
