"""The drafts of JSON Schema that a document may be written in, and the check that it is valid in its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import msgspec

from abe_router.errors import SchemaFault
from abe_router.messages.pointer import join
from abe_router.text import foreign_detail, suggestion

#: The draft of a document without `$schema`.
DEFAULT = "https://json-schema.org/draft/2020-12/schema"

#: The number of each supported draft, by its `$schema` without a trailing `#`.
DRAFTS = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    DEFAULT: 2020,
}

#: Largest document of which all errors are looked for, in bytes.
MAX_EXPLAINED = 16 * 1024
#: Longest part of a wrong value that a fault shows, in characters.
MAX_SHOWN = 120

#: Keywords whose value is data. `$ref` and the like mean nothing in it.
DATA_KEYWORDS = frozenset({"const", "default", "enum", "example", "examples"})
#: Keywords whose members are named by the author of the schema.
_NAMED_BY_AUTHOR = frozenset({"properties", "$defs", "definitions"})

Steps = tuple[str | int, ...]

#: Keys that jsonschema-rs reports as an index, or not at all, in the path of an error.
_LOST_KEY = re.compile(r"[+-]?[0-9]*")
#: What such a key is spelt with instead. It matches nothing, so a regular expression keeps its meaning.
_KEPT = "(?:)"


def draft_of(document: Any, default: int = 2020) -> int:
    """Return the number of the draft that a document names, `default` if it names none."""
    named = document.get("$schema") if isinstance(document, dict) else None
    return DRAFTS.get(named.removesuffix("#"), default) if isinstance(named, str) else default


def schema_uri(dialect: str) -> str:
    """Return the `$schema` that names a dialect. The older drafts end in `#`."""
    return dialect + ("#" if "draft-0" in dialect else "")


#: The `$schema` of each draft, by its number.
SCHEMA_URIS = {draft: schema_uri(dialect) for dialect, draft in DRAFTS.items()}


def faults(document: Any, path: Path | None) -> list[SchemaFault]:
    """Return every fault for which the document is not a JSON Schema of its own dialect."""
    if not isinstance(document, dict | bool):
        return [SchemaFault("schema", "a schema is an object or a boolean", path)]
    named = document.get("$schema", DEFAULT) if isinstance(document, dict) else DEFAULT
    dialect = named.removesuffix("#") if isinstance(named, str) else ""
    if dialect not in DRAFTS:
        close = suggestion(dialect, DRAFTS, cutoff=0.7)
        hint = f"did you mean `{close}`?" if close else f"known drafts: {', '.join(DRAFTS)}"
        return [
            SchemaFault("dialect", f"`{named}` is not a known draft of JSON Schema", path, "/$schema", hint)
        ]
    validator = _meta_validator(dialect)
    if validator.is_valid(document):
        return []
    found_at: dict[str, SchemaFault] = {}
    for error in _errors(validator, _with_kept_keys(document)):
        steps = [step.removesuffix(_KEPT) if isinstance(step, str) else step for step in error.instance_path]
        place = join(steps)
        found_at.setdefault(place, SchemaFault("schema", _explain(error), path, place, _hint(error)))
    return list(found_at.values())


def _errors(validator: jsonschema_rs.Validator, document: Any) -> Iterator[jsonschema_rs.ValidationError]:
    """Yield the errors of a document, of a large one the first alone.

    The validator makes all errors before it returns one, up to eight for each wrong value.
    """
    if len(msgspec.json.encode(document)) <= MAX_EXPLAINED:
        yield from validator.iter_errors(document)
        return
    try:
        validator.validate(document)
    except jsonschema_rs.ValidationError as error:
        yield error


def _with_kept_keys(value: Any) -> Any:
    """Return a copy of a document whose keys keep their spelling in the path of an error."""
    if isinstance(value, dict):
        return {
            key + _KEPT if _LOST_KEY.fullmatch(key) else key: _with_kept_keys(member)
            for key, member in value.items()
        }
    return [_with_kept_keys(item) for item in value] if isinstance(value, list) else value


@cache
def _meta_validator(dialect: str) -> jsonschema_rs.Validator:
    """Return the validator of a meta-schema, which jsonschema-rs includes."""
    uri = schema_uri(dialect)
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
        case jsonschema_rs.ValidationErrorKind.Type(types=types):
            return f"`{keyword.removesuffix(_KEPT)}` expects {' or '.join(types)}, found `{value}`"
        case _:
            detail = foreign_detail(error.message[:MAX_SHOWN])
            return f"`{keyword.removesuffix(_KEPT)}` has an invalid value: `{value}` {detail}"


def _hint(error: jsonschema_rs.ValidationError) -> str:
    """Return a hint for a reference with characters that a URI cannot have, or an empty string."""
    value, kind = error.instance, error.kind
    if not isinstance(kind, jsonschema_rs.ValidationErrorKind.Format) or not isinstance(value, str):
        return ""
    quoted = in_uri(value) if kind.format.startswith("uri") else value
    return f"write `{quoted[:MAX_SHOWN]}`" if quoted != value else ""


def in_uri(text: str) -> str:
    """Return a text with the characters quoted that a URI cannot have."""
    return quote(text, safe="%#/:?&=+$,;@!~*'()[]")


def subschemas(document: Any, path: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Yield every object of the document that may be a schema, with its path, outermost first."""
    if isinstance(document, dict):
        yield path, document
        for key, value in document.items():
            if key not in DATA_KEYWORDS or (path and path[-1] in _NAMED_BY_AUTHOR):
                yield from subschemas(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from subschemas(value, (*path, index))
