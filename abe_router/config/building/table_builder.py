"""Builds the route table from the model of the file. A fault in one entry does not stop the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import asdict

from abe_router.config.building.schemas import Schemas
from abe_router.config.language.forms import Model, plain
from abe_router.config.language.model import ConsumerModel, FileModel, OptionsModel
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.config.reading.variable import has_variables
from abe_router.errors import HandlerError
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.pattern import PatternIndex, is_group, is_key, is_pattern, is_wild, naming, overlaps
from abe_router.routing.contract import ContractIndex, SchemaBinding
from abe_router.routing.handler import Handler
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import Metadata
from abe_router.schema import Schema

_HANDLER_CODES = {
    "path": Code.HANDLER_PATH,
    "module": Code.HANDLER_MODULE,
    "attribute": Code.HANDLER_ATTRIBUTE,
    "callable": Code.HANDLER_CALLABLE,
    "signature": Code.HANDLER_SIGNATURE,
    "forbidden": Code.HANDLER_FORBIDDEN,
    "writable": Code.WORLD_WRITABLE,
}
#: The kinds of faults that concern the module of a handler path, and those that concern its function.
_OF_MODULE, _OF_FUNCTION = {"module"}, {"attribute", "callable", "signature"}


class TableBuilder:
    """Builds bindings and routes from the model of a file. `find` returns the handler of a path."""

    def __init__(
        self,
        file: FileModel,
        root: YamlNode,
        schemas: Schemas,
        find: Callable[[str], Handler],
        faults: Faults,
    ) -> None:
        self._file, self._root, self._faults = file, root, faults
        self._schemas, self._find = schemas, find
        self._broken: set[str] = set()
        self._contracts = ContractIndex((), {})
        entries = root.at(["routes"]).names  # of the file itself, so that a key with a fault is known
        self._keys = [entry for entry in entries if not is_wild(entry)]
        self._known = naming(entries)
        when = file.defaults.when
        self._default_when = None if when is UNSET else schemas.inline(when, ["defaults", "when"])

    def bindings(self) -> tuple[SchemaBinding, ...]:
        """Return the schema binding of each entry that has a schema."""
        found = []
        for key, entry in self._file.routes.items():
            if entry is not None and entry.schema_ is not None:
                schema = self._schemas.load(entry.schema_, ["routes", key, "schema"])
                if schema is not None:
                    found.append(SchemaBinding(key, schema))
        return tuple(found)

    def metadata(self) -> dict[str, Metadata]:
        """Return what the file says about its keys and routes, by their names."""
        found: dict[str, Metadata] = {}
        for key, entry in self._file.routes.items():
            parts = {} if entry is None else {f"{key}/{g}": c for g, c in (entry.consumers or {}).items()}
            for name, part in ({key: entry} | parts).items():
                if part is not None and (part.description or part.tags or part.owner):
                    found[name] = Metadata(part.description, tuple(dict.fromkeys(part.tags)), part.owner)
        return found

    def deduplications(self, bindings: Sequence[SchemaBinding]) -> dict[str, Deduplication]:
        """Return the deduplication of each entry that has `id` or `dedupe`.

        A message has one id, so all entries that match a key must take it from the same source. Ids are shown
        where payloads are not, so none may come from a value that a schema of its messages marks as
        `x-sensitive`.
        """
        sensitive = [binding for binding in bindings if binding.schema.has_sensitive]
        found: dict[str, Deduplication] = {}
        wild: dict[str, Deduplication] = {}
        for key, entry in self._file.routes.items():
            if entry is None or not (entry.id or entry.dedupe):
                continue
            if entry.id and entry.id[0] == "/":
                self._check_id(key, entry.id, sensitive)
            others = found if is_wild(key) else wild  # two keys never overlap
            for other, said in others.items():
                if entry.id and said.source not in {"", entry.id} and overlaps(other, key):
                    message = f"the id comes from `{entry.id}` here, but from `{said.source}` in `{other}`"
                    hint = "a message that matches both has only one id; use the same source for both"
                    self._faults.add(Code.ID, message, self._root.span_at(["routes", key, "id"]), hint=hint)
                    break
            found[key] = Deduplication(plain(entry.dedupe) or 0.0, plain(entry.id) or "")
            if is_wild(key):
                wild[key] = found[key]
        return found

    def _check_id(self, key: str, pointer: str, sensitive: Sequence[SchemaBinding]) -> None:
        for binding in sensitive:
            if overlaps(binding.pattern, key) and binding.schema.marks(pointer):
                message = (
                    f"the id comes from `{pointer}`, which `{binding.schema.name}` marks as `x-sensitive`"
                )
                hint = "ids are shown in logs, lists and streams; use another value, or a header"
                span = self._root.span_at(["routes", key, "id"])
                self._faults.add(Code.ID_SENSITIVE, message, span, hint=hint)
                return

    def routes(
        self, bindings: Sequence[SchemaBinding], deduplications: Mapping[str, Deduplication]
    ) -> tuple[Route, ...]:
        """Return the routes, in the order of the file."""
        self._contracts = ContractIndex(bindings, deduplications)
        index = PatternIndex((each.pattern, each) for each in bindings)
        found = []
        for key, entry in self._file.routes.items():
            if not self._is_good_key(key) or entry is None or not entry.consumers:
                continue
            if is_wild(key):
                own = tuple(c for c in bindings if overlaps(c.pattern, key))
            else:
                own = tuple(index.match(key))
            found += [r for g, c in entry.consumers.items() if (r := self._route(key, g, c, own)) is not None]
        return tuple(found)

    def _is_good_key(self, key: str) -> bool:
        if is_pattern(key):
            return True
        hint = _meant(key) or (
            "use words of letters, digits and `_:@=+~-`, joined by dots; `*` and `#` are whole words"
        )
        shown = key if len(key) <= 80 else f"{key[:80]}…"
        message = f"`{shown}` is not a routing key or pattern"
        self._faults.add(Code.KEY, message, self._root.name_at(["routes", key]), hint=hint)
        return False

    def _route(
        self, key: str, group: str, consumer: ConsumerModel, bindings: tuple[SchemaBinding, ...]
    ) -> Route | None:
        place: list[str | int] = ["routes", key, "consumers", group]
        if not is_group(group):
            hint = "use letters, digits and `_.:-`, at most 128 characters"
            message = f"`{group[:80]}` is not a valid group name"
            self._faults.add(Code.GROUP, message, self._root.name_at(place), hint=hint)
            return None
        handler, when = self._handler(consumer.handler, place), self._when(consumer, place)
        emit = self._emit(consumer.emit, [*place, "emit"])
        if handler is None:
            return None
        return Route(
            key=key,
            group=group,
            handler=handler,
            bindings=bindings,
            when=when,
            retry=RetryPolicy(**_values(consumer.retry)),
            batch=None if consumer.batch is None else Batch(**_values(consumer.batch)),
            emit=emit,
            **{name: plain(getattr(consumer, name)) for name in _PLAIN},
        )

    def _emit(self, key: str | None, place: list[str | int]) -> Emit | None:
        if key is None:
            return None
        if not is_key(key):
            hint = "use words of letters, digits and `_:@=+~-`, joined by dots, without wildcards"
            self._faults.add(
                Code.EMIT, f"`{key[:80]}` is not a routing key", self._root.at(place).span, hint=hint
            )
        elif self._file.unrouted == "error" and not self._known.match(key):
            hint = self._faults.did_you_mean(key, self._keys) or f"add `{key}` to `routes`"
            message = f"no key or pattern in `routes` names `{key}`, which is emitted here"
            self._faults.add(Code.EMIT, message, self._root.at(place).span, hint=hint)
        return Emit(key, self._contracts.contract(key), frozenset(self._file.trace.baggage))

    def _when(self, consumer: ConsumerModel, place: list[str | int]) -> Schema | None:
        if consumer.when == self._file.defaults.when:
            return self._default_when
        return self._schemas.inline(consumer.when, [*place, "when"])

    def _handler(self, path: str, place: list[str | int]) -> Handler | None:
        """Return the handler of a path. A module that cannot be imported is tried and reported once."""
        module = path.partition(":")[0]
        if module in self._broken:
            return None
        try:
            return self._find(path)
        except HandlerError as error:
            if error.kind in _OF_MODULE:
                self._broken.add(module)
            node = self._root.at([*place, "handler"])
            span = _side(error.kind, node, path)
            self._faults.add(_HANDLER_CODES[error.kind], str(error), span, hint=error.hint)
            return None


def _meant(key: str) -> str:
    """Return a hint for a key in the form of another system, or an empty string."""
    if has_variables(key):
        return "variables are replaced in values, not in keys"
    like = re.sub(r"(^|\.)>$", r"\1#", key.replace("/", ".").strip("."))
    return f"did you mean `{like}`?" if like != key and is_pattern(like) else ""


#: The options that a route takes as they are.
_PLAIN = tuple(name for name in OptionsModel.__struct_fields__ if name not in {"batch", "retry", "when"})


def _values(model: Model) -> dict[str, Any]:
    return {name: plain(value) for name, value in asdict(model).items()}


def _side(kind: str, node: YamlNode, path: str) -> Span:
    """Return the span of the module or function that a fault concerns, else that of the whole path."""
    module, colon, function = path.partition(":")
    if node.text != path or not node.plain or not colon:
        return node.span
    if kind in _OF_MODULE:
        return node.span.part(0, len(module))
    return node.span.part(len(module) + 1, len(function)) if kind in _OF_FUNCTION else node.span
