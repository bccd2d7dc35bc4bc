"""Validators of jsonschema-rs for parts of a schema.

The compiled check of a whole schema says yes or no. An explanation asks the same engine about single keywords
and single subschemas, so that it finds the mistakes that the check found, and no others.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import jsonschema_rs

from abe_router.schema.dialect import SCHEMA_URIS
from abe_router.schema.index import Subschema

#: Most keywords that are kept compiled for one schema, and most subschemas.
MAX_KEYWORDS, MAX_SUBSCHEMAS = 4096, 32
#: A compiled subschema holds everything that it reaches. With larger schemas fewer are kept: this many bytes
#: of documents in all.
MAX_KEPT = 2 * 1024 * 1024

#: In draft 4 the flag beside a bound that excludes the bound itself.
EXCLUSIVE = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}

#: A tenth of what the check allows, some 2 ms: a pattern that backtracks so much is the mistake to report.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
#: How jsonschema-rs names a pattern that is too hard for its engine.
_GIVES_UP = (
    jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded,
    jsonschema_rs.ValidationErrorKind.RegexEngineFailure,
)


class Validators:
    """Compiles keywords and subschemas of one schema when they are first asked for, and keeps some.

    `size` is the size of all its documents, in bytes.
    """

    def __init__(self, registry: jsonschema_rs.Registry, *, formats: bool, size: int) -> None:
        self._registry, self._formats = registry, formats
        self._keywords: dict[tuple[int, str] | tuple[str, int], jsonschema_rs.Validator | None] = {}
        self._subschemas: dict[Subschema, jsonschema_rs.Validator | None] = {}
        self._most = max(1, min(MAX_SUBSCHEMAS, MAX_KEPT // max(1, size)))

    def keyword(self, where: Subschema, keyword: str, value: Any) -> bool:
        """Return whether a value satisfies one keyword of a subschema that needs no other subschema."""
        key = (id(where.schema), keyword)
        if key not in self._keywords:
            alone = {"$schema": SCHEMA_URIS[where.draft], keyword: where.schema[keyword]}
            flag = EXCLUSIVE.get(keyword, "")
            if where.draft == 4 and flag in where.schema:
                alone[flag] = where.schema[flag]
            self._keep(key, alone)
        validator = self._keywords[key]
        return validator is None or validator.is_valid(value)

    def pattern(self, expression: str, draft: int, text: str) -> bool:
        """Return whether a pattern matches somewhere in a text."""
        validator = self._pattern(expression, draft)
        return validator is None or validator.is_valid(text)

    def matches(self, expression: str, draft: int, text: str) -> bool | None:
        """Return whether a pattern matches somewhere in a text, None if that takes too much backtracking."""
        validator = self._pattern(expression, draft)
        error = next(iter(validator.iter_errors(text)), None) if validator is not None else None
        return error is None or (None if isinstance(error.kind, _GIVES_UP) else False)

    def _pattern(self, expression: str, draft: int) -> jsonschema_rs.Validator | None:
        key = (expression, draft)
        if key not in self._keywords:
            self._keep(key, {"$schema": SCHEMA_URIS[draft], "pattern": expression})
        return self._keywords[key]

    def gives_up(self, where: Subschema, text: str) -> bool | None:
        """Return whether matching `pattern` takes too much backtracking, None if the text matches."""
        self.keyword(where, "pattern", 0)
        validator = self._keywords[id(where.schema), "pattern"]
        error = next(iter(validator.iter_errors(text)), None) if validator is not None else None
        return None if error is None else isinstance(error.kind, _GIVES_UP)

    def has(self, where: Subschema) -> bool:
        """Return whether a subschema is compiled by now."""
        return where in self._subschemas

    def every(self, where: Subschema, values: list[Any]) -> bool | None:
        """Return whether each value satisfies a subschema, None when the engine cannot be asked about it."""
        if isinstance(where.schema, bool):
            return where.schema or not values
        if where in self._subschemas:
            self._subschemas[where] = self._subschemas.pop(where)  # the least recently used one goes first
        else:
            if len(self._subschemas) >= self._most:
                del self._subschemas[next(iter(self._subschemas))]
            reference = f"{where.document}#{quote(where.pointer)}"
            self._subschemas[where] = self._compiled({"items": {"$ref": reference}})
        validator = self._subschemas[where]
        return None if validator is None else validator.is_valid(values)

    def _keep(self, key: tuple[int, str] | tuple[str, int], schema: dict[str, Any]) -> None:
        if len(self._keywords) >= MAX_KEYWORDS:
            self._keywords.clear()
        self._keywords[key] = self._compiled(schema)

    def _compiled(self, schema: dict[str, Any]) -> jsonschema_rs.Validator | None:
        try:
            return jsonschema_rs.validator_for(
                schema,
                registry=self._registry,
                validate_formats=self._formats,
                pattern_options=_PATTERNS,
                offline=True,
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
            return None
