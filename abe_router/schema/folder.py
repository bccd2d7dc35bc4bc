"""The folder of schemas: checks them, compiles them, and keeps the compiled ones.

Every document that a `$ref` needs is read from the folder first. The compiler works offline. Each document
is of the draft that its own `$schema` names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from abe_router.errors import SchemaFault, SchemaInvalid
from abe_router.messages.pointer import join
from abe_router.schema.cost import SURELY_CHEAP, combined_too_often, large_patterns
from abe_router.schema.dialect import faults, in_uri, subschemas
from abe_router.schema.explanation import Explainer
from abe_router.schema.ignored import ignored_keywords
from abe_router.schema.index import join_uri, placed
from abe_router.schema.library import Document, Library, conflict
from abe_router.schema.schema import Schema
from abe_router.text import foreign_detail, suggestion

#: Most references of one schema for which a target is suggested.
MAX_SUGGESTIONS = 20
#: Most parts of a document among which the target of a reference is suggested.
MAX_PLACES = 1000
#: Most faults of the references of one schema.
MAX_FAULTS = 200
#: Most bytes of schemas that are compiled again because other schemas refer to them.
MAX_REPEATED = 32 * 1024 * 1024
#: The name of the document of a schema that is written in the routes file.
INLINE = "<inline>"
#: A schema and the documents that were read for it, by the URI they were asked for.
_Compiled = tuple[Schema, Mapping[str, Document]]


class SchemaFolder:
    """Loads schemas from one folder, and compiles each again only when a document of it changes.

    `formats` says whether `format` is asserted, in all drafts. `most` is how many bytes of schemas may be
    compiled again between two refreshes, because several schemas refer to them.
    """

    def __init__(self, root: Path, *, formats: bool = True, most: int = MAX_REPEATED) -> None:
        self._library, self._formats, self._most = Library(root), formats, most
        self._seen: set[Document] = set()
        self._repeated = 0
        self._compiled: dict[tuple[str, Document], _Compiled] = {}
        self._older: dict[tuple[str, Document], _Compiled] = {}
        self._ignored: dict[Document, list[SchemaFault]] = {}
        #: The schemas that were loaded since the last refresh, by their paths: many keys share one.
        self._loaded: dict[str, Schema] = {}

    @property
    def root(self) -> Path:
        """The folder, as an absolute path."""
        return self._library.root

    @property
    def files(self) -> frozenset[Path]:
        """Every file that was looked for since the last refresh, found or not."""
        return self._library.files

    def is_current(self) -> bool:
        """Return whether the files that were read are unchanged. False if some were missing, or searched."""
        return self._library.is_current()

    def refresh(self) -> None:
        """Read every file again from now on, and forget what was not loaded since the last refresh."""
        self._library.refresh()
        self._older, self._compiled, self._ignored, self._loaded = self._compiled, {}, {}, {}
        self._seen, self._repeated = set(), 0

    def names(self) -> list[str]:
        """Return the paths of the JSON files in the folder, relative to it, sorted."""
        return self._library.names()

    def load(self, path: str) -> Schema:
        """Return the schema of a file, by its path relative to the folder; raise SchemaInvalid."""
        if (loaded := self._loaded.get(path)) is not None:
            return loaded
        uri = self._library.uri_of(path)
        document = self._library.find(uri)
        if isinstance(document, SchemaFault):
            raise SchemaInvalid(path, [document])
        schema = self._loaded[path] = self._schema(path, uri, document)
        return schema

    def inline(self, value: Any, name: str) -> Schema:
        """Return the schema of a value, its references relative to the folder; raise SchemaInvalid."""
        return self._schema(name, self._library.uri_of(INLINE), Document.of(value))

    def _schema(self, name: str, uri: str, document: Document) -> Schema:
        key = (uri, document)
        known = self._compiled.get(key) or self._older.get(key)
        if known is None or any(self._library.find(u) != d for u, d in known[1].items()):
            known = self._compile(name, uri, document)
        self._compiled[key] = known
        return known[0]

    def _compile(self, name: str, uri: str, document: Document) -> _Compiled:
        self._refuse_repetition(name, document)
        registry, others = self._gather(name, uri, document)
        documents = {uri: document, **others}
        values = {place: each.value for place, each in documents.items()}
        self._repeated += sum(len(each.canonical) for each in others.values() if each in self._seen)
        self._seen.update(others.values())
        self._refuse_repetition(name, document)
        size = sum(len(each.canonical) for each in documents.values())
        if size > SURELY_CHEAP and (costly := combined_too_often(values, uri, document.path)):
            raise SchemaInvalid(name, costly)
        try:
            validator = jsonschema_rs.validator_for(
                document.value,
                registry=registry,
                base_uri=uri,
                validate_formats=self._formats,
                offline=True,
            )
        except jsonschema_rs.ValidationError as error:
            why = f"it cannot be compiled {foreign_detail(error.message)}"
            fault = SchemaFault("schema", why, document.path, join(error.instance_path))
            unresolved = _malformed(documents) or list(islice(_unresolved(documents, registry), MAX_FAULTS))
            raise SchemaInvalid(name, unresolved or [fault]) from None
        schema = Schema(
            digest=self._digest(document, others),
            name=name,
            document=document.value,
            is_valid=validator.is_valid,
            sources=frozenset(d.path for d in documents.values() if d.path is not None),
            ignored=tuple(chain.from_iterable(map(self._ignored_in, documents.values()))),
            _explainer=Explainer(
                values,
                uri,
                self._library.uri,
                registry,
                formats=self._formats,
                size=size,
            ),
        )
        return schema, others

    def _refuse_repetition(self, name: str, document: Document) -> None:
        if self._repeated > self._most:
            message = "the schemas refer to large schemas too often: each reference compiles them again"
            raise SchemaInvalid(name, [SchemaFault("schema", message, document.path)])

    def _ignored_in(self, document: Document) -> list[SchemaFault]:
        """Return the keywords of a document that check nothing. Each file is looked through once."""
        if document not in self._ignored:
            self._ignored[document] = [
                SchemaFault("ignored", message, document.path, document.pointer + pointer, hint)
                for pointer, message, hint in ignored_keywords(document.value, filters=document.path is None)
            ]
        return self._ignored[document]

    def _gather(
        self, name: str, uri: str, document: Document
    ) -> tuple[jsonschema_rs.Registry, dict[str, Document]]:
        """Read and check all that a document refers to; return it by URI, with a registry that holds it."""
        found = _faults(document)
        if any(fault.kind == "dialect" for fault in found):
            raise SchemaInvalid(name, found)
        others: dict[str, Document] = {}
        missing: dict[str, SchemaFault] = {}

        def retrieve(wanted: str) -> Any:
            other = self._library.find(wanted)
            if isinstance(other, SchemaFault):
                missing[wanted] = other
                return True
            others[wanted] = other
            wrong = _faults(other)
            found.extend(wrong)
            return True if wrong else other.value

        try:
            registry = jsonschema_rs.Registry([(uri, document.value)], retriever=retrieve)
        except ValueError as error:
            fault = SchemaFault("reference", str(error), document.path)
            raise SchemaInvalid(name, found or [fault]) from None
        documents = {uri: document, **others}
        if others:
            found.extend(_conflicts(documents))
        if missing or found:
            unresolved = islice(_unresolved(documents, registry, missing), MAX_FAULTS)
            raise SchemaInvalid(name, [*found, *_missing(documents, missing), *unresolved])
        return registry, others

    def _digest(self, document: Document, others: Mapping[str, Document]) -> str:
        digest = hashlib.sha256(b"formats\0" if self._formats else b"")
        digest.update(document.canonical)
        for uri, other in sorted(others.items()):
            name = self._library.name_of(uri).encode(errors="surrogateescape")
            digest.update(b"\0%b\0%b" % (name, other.canonical))
        return digest.hexdigest()


def _faults(document: Document) -> list[SchemaFault]:
    """Return the faults of a document, at their places in its file.

    The check of a document compiles its patterns, so their size comes first.
    """
    found = large_patterns(document.value, document.path) or faults(document.value, document.path)
    return [replace(fault, pointer=document.pointer + fault.pointer) for fault in found]


def _conflicts(documents: Mapping[str, Document]) -> Iterator[SchemaFault]:
    """Yield a fault for each `$id` of two different schemas: references to and below it are ambiguous."""
    first: dict[str, tuple[Document, Any]] = {}
    for uri, document in sorted(documents.items()):
        for path, schema, base, _, own in placed(document.value, uri):
            if own is not None:
                other, same = first.setdefault(base, (document, schema))
                if other.path != document.path and same != schema:
                    yield conflict(document, join(path), schema, other)


@dataclass(frozen=True, slots=True)
class _Reference:
    """A reference: the document it stands in and where, the URI it is relative to, and what it says."""

    document: Document
    pointer: str
    keyword: str
    base: str
    text: str

    @property
    def target(self) -> str:
        """The document that it leads to, as a URI in plain characters, whichever of them are quoted."""
        return unquote(join_uri(self.base, unquote(self.text.partition("#")[0])))

    def fault(self, reason: SchemaFault) -> SchemaFault:
        """Return the fault of a reference whose target is missing."""
        kind = "outside" if reason.kind == "outside" else "reference"
        why = (
            "leads out of the schemas folder"
            if kind == "outside"
            else f"cannot be resolved: {reason.message}"
        )
        message = f"`{self.keyword}` to `{self.text}` {why}"
        return SchemaFault(kind, message, self.document.path, self.pointer, reason.hint)


def _references(documents: Mapping[str, Document]) -> Iterator[_Reference]:
    """Yield every reference in the documents, given by URI."""
    for uri, document in documents.items():
        for path, schema, base, _, _ in placed(document.value, uri):
            for key in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(text := schema.get(key), str):
                    yield _Reference(document, document.pointer + join([*path, key]), key, base, text)


def _missing(documents: Mapping[str, Document], reasons: Mapping[str, SchemaFault]) -> list[SchemaFault]:
    """Return the faults of missing documents, each at the references to it.

    A file that can be read but not used has its fault at its own place.
    """
    found = [reason for reason in reasons.values() if reason.path is not None]
    unplaced = {unquote(uri): reason for uri, reason in reasons.items() if reason.path is None}
    placed = set()
    for reference in _references(documents):
        if len(found) >= MAX_FAULTS:
            return found
        if (reason := unplaced.get(reference.target)) is not None:
            found.append(reference.fault(reason))
            placed.add(reference.target)
    path = next(iter(documents.values())).path
    return found + [replace(reason, path=path) for uri, reason in unplaced.items() if uri not in placed]


def _malformed(documents: Mapping[str, Document]) -> list[SchemaFault]:
    """Return the first reference with characters that a URI cannot have, as a fault that counts them all."""
    odd = [each for each in _references(documents) if in_uri(each.text) != each.text]
    if not odd:
        return []
    first, more = odd[0], f"; so are {len(odd) - 1:,} more" if len(odd) > 1 else ""
    message = f"`{first.keyword}` to `{first.text}` is not a URI reference{more}"
    hint = f"write `{in_uri(first.text)}`"
    return [SchemaFault("reference", message, first.document.path, first.pointer, hint)]


def _unresolved(
    documents: Mapping[str, Document],
    registry: jsonschema_rs.Registry,
    missing: Collection[str] = (),
) -> Iterator[SchemaFault]:
    """Yield a fault for each reference that has no target in a document that exists."""
    absent = {unquote(uri) for uri in missing}
    by_target = {unquote(uri): document for uri, document in documents.items()}
    places: dict[str, list[str]] = {}
    suggestions = 0
    for reference in _references(documents):
        if reference.target in absent:
            continue
        try:
            registry.resolver(reference.base).lookup(reference.text)
        except (jsonschema_rs.ReferencingError, ValueError):
            name = reference.target
            if name not in places:
                target = by_target.get(name)
                paths = subschemas(target.value) if target else iter(())
                places[name] = [join(path) for path, _ in islice(paths, MAX_PLACES)]
            before, _, fragment = reference.text.partition("#")
            suggestions += 1
            close = suggestion(fragment, places[name]) if suggestions <= MAX_SUGGESTIONS else None
            yield SchemaFault(
                "reference",
                f"`{reference.keyword}` to `{reference.text}` has no target",
                reference.document.path,
                reference.pointer,
                f"did you mean `{before}#{close}`?" if close else "",
            )
