"""The drafts of JSON Schema that a document may be written in, and the check that it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from abe_router.errors import SchemaFault

#: What a document without `$schema` is taken for.
DEFAULT = "https://json-schema.org/draft/2020-12/schema"

#: The meta-schemas known, by the `$schema` that names them, without a trailing `#`.
DIALECTS = (
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    DEFAULT,
)

#: Most of a wrong value that is shown, in characters.
MAX_SHOWN = 120

#: Keywords whose value is data, in which `$ref` and the like mean nothing.
DATA_KEYWORDS = frozenset({"const", "default", "enum", "example", "examples"})

Steps = tuple[str | int, ...]


def pointer(path: Iterable[str | int]) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def faults(document: Any, path: Path | None) -> list[SchemaFault]:
    """Return everything for which the document is not a JSON Schema of its own dialect."""
    if not isinstance(document, dict | bool):
        return [SchemaFault("schema", "a schema is an object or a boolean", path)]
    named = document.get("$schema", DEFAULT) if isinstance(document, dict) else DEFAULT
    dialect = named.removesuffix("#") if isinstance(named, str) else ""
    if dialect not in DIALECTS:
        close = get_close_matches(dialect, DIALECTS, 1, 0.7)
        hint = f"did you mean `{close[0]}`?" if close else f"known are: {', '.join(DIALECTS)}"
        return [
            SchemaFault("dialect", f"`{named}` names no known draft of JSON Schema", path, "/$schema", hint)
        ]
    found_at: dict[str, SchemaFault] = {}
    for error in _meta_validator(dialect).iter_errors(document):
        place = pointer(error.instance_path)
        found_at.setdefault(place, SchemaFault("schema", _explain(error), path, place))
    return list(found_at.values())


@cache
def _meta_validator(dialect: str) -> jsonschema_rs.Validator:
    """Return the validator of the meta-schema, which jsonschema-rs carries in itself."""
    uri = dialect + ("#" if "draft-0" in dialect else "")
    return jsonschema_rs.validator_for({"$schema": uri, "$ref": uri}, validate_formats=True, offline=True)


def _explain(error: jsonschema_rs.ValidationError) -> str:
    keyword = next((str(step) for step in reversed(error.instance_path) if isinstance(step, str)), "")
    value = json.dumps(error.instance, ensure_ascii=False)[:MAX_SHOWN]
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.Format(format="regex"):
            return f"`{value}` is not a regular expression"
        case jsonschema_rs.ValidationErrorKind.Format(format=name):
            return f"`{value}` is not a {name}"
        case _ if keyword == "type" and error.kind.name in {"anyOf", "enum"}:
            return f"`{value}` is not a JSON type"
        case _:
            return f"`{keyword}` is not a valid keyword here: {error.message[:MAX_SHOWN]}"


def subschemas(
    document: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield every object of the document that may be a schema, with its path, outermost first."""
    if isinstance(document, dict):
        yield path, document
        for key, value in document.items():
            if key not in DATA_KEYWORDS or path[-1:] in {("properties",), ("$defs",), ("definitions",)}:
                yield from subschemas(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from subschemas(value, (*path, index))
