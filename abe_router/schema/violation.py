"""What a failed check says: where, which keyword, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from jsonschema_rs import ValidationError
from jsonschema_rs import ValidationErrorKind as Kind

from abe_router.errors import Violation
from abe_router.schema.dialect import pointer
from abe_router.schema.sensitive import Sensitivity

#: Longest string quoted, in characters, and most alternatives listed.
MAX_QUOTED, MAX_LISTED = 60, 8

_encode = msgspec.json.Encoder(decimal_format="number").encode

MASKED = "(masked)"


def found(value: Any) -> str:
    """Describe a value in a few words: containers are counted, never dumped, and strings are cut."""
    match value:
        case dict():
            return f"object with {_count(len(value), 'member')}"
        case list() | tuple():
            return f"array with {_count(len(value), 'item')}"
        case str() if len(value) > MAX_QUOTED:
            return f"{_json(value[:MAX_QUOTED])}… ({len(value):,} characters)"
        case _:
            return _json(value)


@dataclass(frozen=True, slots=True)
class Describer:
    """Turns the errors of the compiled check into violations, masking what the schema calls sensitive.

    `base` is the URI of the schema's own document, `root` that of the folder, with a trailing slash.
    """

    base: str
    root: str
    sensitivity: Sensitivity

    def describe(self, value: Any, error: ValidationError) -> Iterator[Violation]:
        """Yield what is to be said of one error that the check of `value` gave: mostly one violation."""
        match error.kind:
            case Kind.AnyOf(branches) | Kind.OneOfNotValid(branches):
                branch = closest(branches, len(error.instance_path))
                if branch is not None:
                    for inner in branch:
                        yield from self.describe(value, inner)
                else:
                    yield self._violation(value, error, _alternatives(branches))
            case Kind.AdditionalProperties(names) | Kind.UnevaluatedProperties(names):
                for name in names:
                    yield self._unexpected(value, error, name)
            case Kind.FalseSchema() if _forbids_all_properties(error):
                for name in _at(value, error.instance_path):
                    yield self._unexpected(value, error, name)
            case _:
                yield self._violation(value, error, _expected(error.kind), _found_instead(error))

    def _violation(self, value: Any, error: ValidationError, expected: str, instead: str = "") -> Violation:
        path = error.instance_path
        masked_at = self.sensitivity.depth(path)
        if masked_at is not None:
            # Below a sensitive value the path itself may tell, as the keys of a map do.
            path, instead = path[:masked_at], MASKED
            expected = _expected_unquoted(error.kind) or expected
        what = instead or found(_at(value, path))
        return Violation(pointer(path), keyword(error), expected, what, self._place(error))

    def _unexpected(self, value: Any, error: ValidationError, name: str) -> Violation:
        path = error.instance_path
        if self.sensitivity.depth(path) is not None:
            return self._violation(value, error, "no further property")
        masked = self.sensitivity.depth([*path, name]) is not None
        what = MASKED if masked else found(_at(value, [*path, name]))
        return self._violation(value, error, f"no property `{_cut(name)}`", what)

    def _place(self, error: ValidationError) -> str:
        location = error.absolute_keyword_location or ""
        document, hash_, place = location.partition("#")
        if not hash_ or document == self.base:
            return place or pointer(error.schema_path)
        return f"{document.removeprefix(self.root)}#{place}"


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _forbids_all_properties(error: ValidationError) -> bool:
    """Say whether the schema `false` stands for all properties, as `additionalProperties` without others.

    Alone of its kind this error has the path of the object, and the value of a property.
    """
    steps = ["properties", "additionalProperties"]
    own = error.schema_path[-2:] == steps and error.instance_path[-1:] == steps[1:]
    return error.schema_path[-1:] == steps[1:] and not own


def keyword(error: ValidationError) -> str:
    """Return the schema keyword that failed; the schema `false`, which has none, is called so."""
    match error.kind:
        case Kind.FalseSchema() if not _forbids_all_properties(error):
            return "false"
        case Kind.PropertyNames():
            return "propertyNames"
    last = error.schema_path[-1] if error.schema_path else ""
    return last if isinstance(last, str) and last else error.kind.name


def closest(branches: Sequence[Sequence[ValidationError]], depth: int) -> Sequence[ValidationError] | None:
    """Return the errors of the alternative that the value was most likely meant to match, if one stands out.

    `depth` is the length of the path to the value.
    """
    ranked = sorted((_distance(errors, depth), index) for index, errors in enumerate(branches))
    if not ranked or ranked[0][0][0]:
        return None
    alone = len(ranked) == 1 or ranked[0][0] < ranked[1][0]
    return branches[ranked[0][1]] if alone else None


def _distance(errors: Sequence[ValidationError], depth: int) -> tuple[bool, bool, int]:
    """Say how far a value is from an alternative.

    One of another type is the farthest, then one whose constants differ at the value or its members, as
    those that tell kinds apart do; then the one with fewer errors is closer.
    """
    other_type, other_kind, count = False, False, 0
    for error in errors:
        near = len(error.instance_path) - depth
        match error.kind:
            case Kind.AnyOf(branches) | Kind.OneOfNotValid(branches) if branches:
                inner = min(_distance(branch, depth) for branch in branches)
                other_type, other_kind, count = (
                    other_type or inner[0],
                    other_kind or inner[1],
                    count + inner[2],
                )
            case kind:
                other_type |= kind.name == "type" and near == 0
                other_kind |= kind.name in {"const", "enum"} and near <= 1
                count += 1
    return other_type, other_kind, count


def _alternatives(branches: Sequence[Sequence[ValidationError]]) -> str:
    types: list[str] = []
    for errors in branches:
        match [error.kind for error in errors]:
            case [Kind.Type(names)]:
                types += names
            case _:
                return f"a match of at least one of {len(branches)} alternatives"
    return " or ".join(dict.fromkeys(types))


def _expected(kind: Kind) -> str:
    match kind:
        case Kind.Type(types):
            return " or ".join(types)
        case Kind.Required(name):
            return f"property `{_cut(name)}`"
        case Kind.Constant(value):
            return found(value)
        case Kind.Enum(options):
            more = f", … ({len(options)} in all)" if len(options) > MAX_LISTED else ""
            return f"one of {', '.join(map(found, options[:MAX_LISTED]))}{more}"
        case Kind.Minimum(limit):
            return f"at least {_json(limit)}"
        case Kind.Maximum(limit):
            return f"at most {_json(limit)}"
        case Kind.ExclusiveMinimum(limit):
            return f"more than {_json(limit)}"
        case Kind.ExclusiveMaximum(limit):
            return f"less than {_json(limit)}"
        case Kind.MultipleOf(step):
            return f"a multiple of {_json(step)}"
        case Kind.MinLength(limit):
            return f"at least {_count(limit, 'character')}"
        case Kind.MaxLength(limit):
            return f"at most {_count(limit, 'character')}"
        case Kind.MinItems(limit):
            return f"at least {_count(limit, 'item')}"
        case Kind.MaxItems(limit) | Kind.AdditionalItems(limit):
            return f"at most {_count(limit, 'item')}"
        case Kind.MinProperties(limit):
            return f"at least {_count(limit, 'member')}"
        case Kind.MaxProperties(limit):
            return f"at most {_count(limit, 'member')}"
        case Kind.Pattern(expression):
            return f"a match of `{expression}`"
        case Kind.Format(name):
            return f"format `{name}`"
        case Kind.ContentEncoding(name) | Kind.ContentMediaType(name):
            return f"content in `{name}`"
        case Kind.UniqueItems():
            return "no item twice"
        case Kind.UnevaluatedItems(indexes):
            return f"no item at {', '.join(map(str, indexes[:MAX_LISTED]))}"
        case Kind.Contains():
            return "other items matching `contains`"
        case Kind.PropertyNames(error):
            return f"property names with {_expected(error.kind)}"
        case Kind.Not():
            return "no match of the schema under `not`"
        case Kind.OneOfMultipleValid():
            return "exactly one alternative to match"
        case Kind.FalseSchema():
            return "no value here"
        case Kind.BacktrackLimitExceeded() | Kind.RegexEngineFailure():
            return "a match of the pattern"
        case _:
            return f"what `{kind.name}` asks for"


def _expected_unquoted(kind: Kind) -> str:
    """Return what was expected without the values that `_expected` would quote, or nothing if none are."""
    match kind:
        case Kind.Constant():
            return "the one value allowed"
        case Kind.Enum(options):
            return f"one of {_count(len(options), 'value')}"
        case Kind.PropertyNames(error) if _expected_unquoted(error.kind):
            return "other property names"
        case _:
            return ""


def _found_instead(error: ValidationError) -> str:
    """Return what was found where that is not the value itself."""
    match error.kind:
        case Kind.OneOfMultipleValid(branches):
            matching = [str(index) for index, errors in enumerate(branches) if not errors]
            return f"that {' and '.join(matching)} do"
        case Kind.PropertyNames(inner):
            return found(inner.instance)
        case Kind.BacktrackLimitExceeded() | Kind.RegexEngineFailure():
            return "a string on which the pattern gives up: it backtracks too much (the schema's fault)"
        case _:
            return ""


def _json(value: Any) -> str:
    return _encode(value).decode()


def _cut(name: str) -> str:
    return name if len(name) <= MAX_QUOTED else f"{name[:MAX_QUOTED]}…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
