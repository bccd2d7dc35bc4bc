"""What is most likely not meant of ids: places that no message has one at, and backends that remember none.

What is told is certain: of schemas that are put together of others nothing is concluded but what their own
keywords say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from abe_router.backend import Features
from abe_router.config.language.model import File
from abe_router.config.reading.code import Code
from abe_router.config.rules.schema_facts import forbids, properties_of, types_of
from abe_router.messages.pattern import is_wild, matches
from abe_router.messages.pointer import join, parse
from abe_router.routing.contract import SchemaBinding

#: The types of JSON Schema that an id may have.
_FIT = {"string", "integer", "number"}


class Finding(NamedTuple):
    """A warning, and the place in the file that it points at."""

    code: Code
    path: tuple[str, ...]
    message: str
    hint: str


def id_findings(
    file: File, bindings: Sequence[SchemaBinding], features: Features | None
) -> Iterator[Finding]:
    """Yield what is odd about the ids of the entries; `features` are the backend's, None if not known."""
    own = {contract.pattern: contract for contract in bindings}
    wild = [contract for contract in bindings if is_wild(contract.pattern)]
    for key, entry in file.routes.items():
        if entry is None:
            continue
        why = features.without_effect().get("dedupe") if features is not None else None
        if entry.dedupe and why:
            message = f"`dedupe` is in vain: the backend {why}"
            yield Finding(Code.BACKEND_CANNOT, ("routes", key, "dedupe"), message, "")
        if entry.id:
            met = [
                contract for contract in wild if contract.pattern != key and matches(contract.pattern, key)
            ]
            for contract in (*([own[key]] if key in own else ()), *met):
                yield from _at_odds(key, entry.id, contract)


def _at_odds(key: str, source: str, contract: SchemaBinding) -> Iterator[Finding]:
    """Yield the warning that by a schema no message of the key has its id where `source` says."""
    path, name, document = ("routes", key, "id"), contract.schema.name, contract.schema.document
    if source[0] == "/":
        if why := _contradiction(document, parse(source)):
            message = f"no message has an id at `{source}`: by `{name}` {why}"
            yield Finding(Code.ID_NOWHERE, path, message, "a message without its id is refused")
    elif isinstance(document, dict) and source in properties_of(document):
        message = f"`{source}` names a header, and `{name}` has a member of that name"
        yield Finding(Code.ID_NOWHERE, path, message, f"did you mean `/{source}`?")


def _contradiction(schema: Any, steps: Sequence[str]) -> str:
    """Return for what reason no id can be so many steps below a schema, or nothing."""
    for number, step in enumerate(steps, 1):
        if not isinstance(schema, dict):
            return ""
        types = types_of(schema)
        if types and not types & {"object", "array"}:
            return f"what holds it is {_either(types)}"
        if types == {"object"} and forbids(schema, step):
            return f"there is no `{join(steps[:number])}`"
        schema = properties_of(schema).get(step)
    types = types_of(schema) if isinstance(schema, dict) else frozenset()
    return f"it is {_either(types)}, neither text nor an integer" if types and not types & _FIT else ""


def _either(types: frozenset[str]) -> str:
    return " or ".join(f"`{name}`" for name in sorted(types))
