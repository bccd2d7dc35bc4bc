"""JSON Schemas: the verdict on a payload equals that of the library jsonschema."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import jsonschema.exceptions
import referencing.exceptions

from abe_router.errors import SchemaInvalid, Violation
from abe_router.messages.pointer import find
from abe_router.schema import Schema, SchemaFolder
from fuzz.corpus import Corpus
from fuzz.grammar import json_schema, json_value
from fuzz.mutate import mutate_value
from fuzz.target.target import Input, Target, demand

#: The longest text of a violation, in characters.
_LONGEST = 2000
#: Values on which checkers differ by design: beyond 2^53 and below 1e-300, where floats are not exact.
_LEAVES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    5,
    10,
    1.0,
    0.5,
    2.5,
    "",
    "a",
    "ab",
    "b",
    "42",
    "é",
    [],
    {},
    [1],
    {"a": 1},
)
_OPAQUE = (
    "format",
    "contentMediaType",
    "contentEncoding",
    "$dynamicRef",
    "$recursiveRef",
    "$anchor",
    "$id",
    "id",
)


class SchemaTarget(Target):
    """Compiles schemas of a grammar and mutated real ones, and checks payloads against them."""

    name = "schema"
    about = "a schema is compiled or refused; the verdict on a payload equals jsonschema's"
    short = 800

    def open(self, folder: Path) -> None:
        """Open a folder with one schema that others may refer to."""
        super().open(folder)
        (folder / "other.json").write_text('{"type": ["integer", "string", "array"]}')
        self._folder = SchemaFolder(folder, formats=False)

    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return a schema and some payloads."""
        schema = json_schema(random) if random.random() < 0.7 else random.choice(corpus.schemas)
        if random.random() < 0.2:
            schema = mutate_value(random, schema)
        payloads = [json_value(random, 3, _LEAVES) for _ in range(4)]
        payloads += [mutate_value(random, random.choice(corpus.payloads), _LEAVES)]
        return [schema, payloads]

    def check(self, given: Input) -> None:
        """Compare the verdicts, and check the violations."""
        document, payloads = given
        try:
            schema = self._folder.inline(document, "fuzzed")
        except SchemaInvalid as error:
            demand(bool(error.faults), "refused without a fault")
            for fault in error.faults:
                demand(bool(fault.kind and fault.message), f"no reason: {fault}")
            return
        oracle = _oracle(document)
        for payload in payloads:
            self._check_payload(schema, oracle, payload)

    def _check_payload(self, schema: Schema, oracle: Any, payload: Any) -> None:
        is_valid, violations = schema.is_valid(payload), schema.violations(payload)
        demand(is_valid == (not violations), f"valid: {is_valid}, violations: {violations}")
        demand(len(violations) <= 1000, "more violations than promised")
        for violation in violations:
            _check_violation(violation, payload)
        if oracle is None:
            return
        try:
            expected = oracle.is_valid(payload)
        except (RecursionError, jsonschema.exceptions.SchemaError, referencing.exceptions.Unresolvable):
            return
        demand(is_valid == expected, f"valid: {is_valid}; jsonschema: {expected}; {json.dumps(payload)}")


def _check_violation(violation: Violation, payload: Any) -> None:
    try:
        find(payload, violation.pointer)
    except LookupError:
        demand(False, f"the pointer leads nowhere: {violation}")
    demand(len(str(violation)) < _LONGEST, f"a violation of {len(str(violation))} characters")


def _oracle(document: Any) -> Any:
    """Return a validator of jsonschema, or None if the two may differ by design."""
    if not isinstance(document, dict) or _mentions_opaque(document):
        return None
    try:
        kind = jsonschema.validators.validator_for(document, jsonschema.Draft202012Validator)
        kind.check_schema(document)
    except (jsonschema.exceptions.SchemaError, RecursionError):
        return None
    return kind(document)


def _mentions_opaque(document: Any) -> bool:
    text = json.dumps(document)
    # jsonschema takes the names of keywords below `unevaluatedProperties` of draft 2019-09 for members.
    is_wrong = "2019-09" in text and "unevaluatedProperties" in text
    return is_wrong or any(f'"{keyword}"' in text for keyword in _OPAQUE) or ".json" in text
