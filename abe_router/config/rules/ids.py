"""Ids that are probably mistakes: a header in place of a member, or the backend remembers no ids.

Only certain findings are reported. Of a schema that refers to others, only its own keywords count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from abe_router.backend import Features
from abe_router.config.language.model import FileModel
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.config.rules.contradiction import properties_of, types_of
from abe_router.config.rules.finding import Finding
from abe_router.messages.pattern import is_wild, matches, overlaps
from abe_router.messages.pointer import join
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.policies import is_inherited
from abe_router.routing.route import Route

#: What the id of a message is called.
_CALLED_ID = re.compile(r"(.*[_-])?(id|uuid)|.*(Id|ID)")


def id_findings(
    file: FileModel, bindings: Sequence[SchemaBinding], features: Features | None, root: YamlNode
) -> Iterator[Finding]:
    """Yield the findings about the ids of the entries. `features` are the backend's, None if unknown."""
    own = {binding.pattern: binding for binding in bindings}
    wild = [binding for binding in bindings if is_wild(binding.pattern)]
    with_id = [key for key, entry in file.routes.items() if entry is not None and entry.id]
    for key, entry in file.routes.items():
        if entry is None:
            continue
        why = features.without_effect().get("dedupe") if features is not None else None
        if entry.dedupe and why:
            message = f"`dedupe` has no effect: the backend {why}"
            yield Finding(Code.BACKEND_CANNOT, root.span_at(["routes", key, "dedupe"]), message)
        elif entry.dedupe and not any(overlaps(other, key) for other in with_id):
            name = _likely_id(own[key].schema.document) if key in own else ""
            if name:
                message = "`dedupe` has an effect only on messages that are published with an id"
                span = root.span_at(["routes", key, "dedupe"])
                yield Finding(Code.ID_NOT_NAMED, span, message, f"add `id: {join([name])}`")
        if entry.id:
            met = [each for each in wild if each.pattern != key and matches(each.pattern, key)]
            for binding in (*([own[key]] if key in own else ()), *met):
                span = root.span_at(["routes", key, "id"])
                yield from _at_odds(entry.id, binding, span)


def shared_id_findings(routes: Sequence[Route], root: YamlNode) -> Iterator[Finding]:
    """Yield a finding for each route whose emitted messages have no id, or the ids of those of another route.

    An emitted message has most headers of its cause. If its id is one of them, two messages of one cause are
    duplicates of each other. If its id is another one, it has none.
    """
    before: dict[str, list[Route]] = defaultdict(list)
    for route in routes:
        emit = route.emit
        given = emit.contract.deduplication if emit is not None else None
        if emit is None or given is None or given.source[:1] in {"", "/"}:
            continue
        span = root.span_at(["routes", route.key, "consumers", route.group, "emit"])
        hint = "take the id from the payload, such as `id: /id`"
        if not is_inherited(given.source):
            message = (
                f"`{emit.key}` takes its id from the header `{given.source}`, which an emitted message does"
                f" not inherit, so what `{route.name}` emits is refused"
            )
            yield Finding(Code.ID_SHARED, span, message, hint)
        if not given.window or not is_inherited(given.source):
            continue
        other = next((each for each in before[emit.key] if overlaps(each.key, route.key)), None)
        if other is not None:
            message = (
                f"`{emit.key}` takes its id from the header `{given.source}`, so what `{other.name}` and"
                f" `{route.name}` emit for one message is stored once"
            )
            yield Finding(Code.ID_SHARED, span, message, hint)
        else:
            before[emit.key].append(route)


def _likely_id(document: Any) -> str:
    """Return the member that most likely is the id: a required text or integer that is called so."""
    if not isinstance(document, dict):
        return ""
    named = properties_of(document)
    likely = [
        name
        for name in document.get("required") or ()
        if _CALLED_ID.fullmatch(name)
        and isinstance(schema := named.get(name), dict)
        and types_of(schema) & {"string", "integer"}
    ]
    return min(likely, key=len) if likely else ""


def _at_odds(source: str, binding: SchemaBinding, span: Span) -> Iterator[Finding]:
    """Yield the finding that a header is named where the schema has a member of that name."""
    document = binding.schema.document
    if source[0] != "/" and isinstance(document, dict) and source in properties_of(document):
        message = f"`{source}` names a header, but `{binding.schema.name}` has a member with that name"
        yield Finding(Code.ID_NOWHERE, span, message, f"did you mean `/{source}`?")
