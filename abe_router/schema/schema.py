"""A compiled JSON Schema, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import jsonschema_rs

from abe_router.errors import Violation
from abe_router.schema.violation import Describer

#: Most violations told of one payload: a large array of wrong items has as many as it has items.
MAX_VIOLATIONS = 1000


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema, ready to check payloads; two are equal when their digests are.

    `name` is how it is shown. `digest` is over the document, every document it refers to and whether
    formats are asserted, so that reformatting or moving a file changes nothing. `is_valid` is the compiled
    check itself, for the hot path. `sources` are the files it was made of.

    Payloads are values as decoded from JSON, nested at most as deep as a message may be: deeper ones
    built in memory can exhaust the native stack of the checker.
    """

    digest: str
    name: str = field(compare=False)
    document: Any = field(compare=False, repr=False)
    is_valid: Callable[[Any], bool] = field(compare=False, repr=False)
    sources: frozenset[Path] = field(compare=False, repr=False)
    _validator: jsonschema_rs.Validator = field(compare=False, repr=False)
    _describer: Describer = field(compare=False, repr=False)

    def violations(self, value: Any) -> tuple[Violation, ...]:
        """Return every way in which the value breaks the schema, up to 1,000; none when it is valid."""
        errors = self._validator.iter_errors(value)
        told = chain.from_iterable(self._describer.describe(value, error) for error in errors)
        return tuple(islice(told, MAX_VIOLATIONS))
