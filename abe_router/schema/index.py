"""The subschemas of a schema, found by keyword and by reference, each with its location."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin

from abe_router.messages.pointer import escape, parse
from abe_router.schema.dialect import Steps, draft_of, subschemas

#: Each dynamic reference, with the anchor that it leads to.
DYNAMIC_ANCHORS = {"$dynamicRef": "$dynamicAnchor", "$recursiveRef": "$recursiveAnchor"}

#: The keywords whose subschemas apply to the same value, on some branch: in a list, by themselves, by name.
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")


def join_uri(base: str, reference: str) -> str:
    """Return the URI that a reference leads to; `base` itself when it is not a reference at all."""
    if reference[:1] == "#" != reference:  # most references; the general case takes ten times as long
        return base.partition("#")[0] + reference
    try:
        return urljoin(base, reference)
    except ValueError:
        return base


def own_id(schema: Any, draft: int) -> str | None:
    """Return the `$id` of a schema that changes what its references are relative to, None without one.

    Up to draft 7, a `$ref` hides everything beside it.
    """
    if not isinstance(schema, dict) or (draft <= 7 and isinstance(schema.get("$ref"), str)):
        return None
    own = schema.get("id" if draft == 4 else "$id")
    return own if isinstance(own, str) and not own.startswith("#") else None


class Placed(NamedTuple):
    """An object that may be a schema: its path in a document, its base, its draft, and its own `$id`."""

    path: Steps
    schema: Any
    base: str
    draft: int
    own: str | None


def placed(document: Any, uri: str) -> Iterator[Placed]:
    """Yield every object of a document that may be a schema, outermost first."""
    around: list[tuple[Steps, str, int]] = [((), uri, draft_of(document))]  # schemas around that have an id
    for path, schema in subschemas(document):
        while path[: len(around[-1][0])] != around[-1][0]:
            around.pop()
        _, base, draft = around[-1]
        if (own := own_id(schema, draft_of(schema, draft))) is not None:
            base, draft = join_uri(base, own).removesuffix("#"), draft_of(schema, draft)
            around.append((path, base, draft))
        yield Placed(path, schema, base, draft, own)


@dataclass(frozen=True, slots=True, eq=False)
class Subschema:
    """A schema within a document.

    `base` is the URI that its references are relative to. `document` and `pointer` are its location, and
    `draft` is the number of the draft that it is written in.
    """

    schema: Any
    base: str
    document: str
    pointer: str
    draft: int


class SchemaIndex:
    """Finds subschemas in the documents of one schema.

    `documents` are the parsed documents by URI, `root` the URI of the schema's own. A subschema is the same
    object each time it is asked for.
    """

    def __init__(self, documents: Mapping[str, Any], root: str) -> None:
        self._documents = {unquote(uri): (uri, value) for uri, value in documents.items()}
        self._children: dict[tuple[int, str | int], Subschema] = {}
        self._resolved: dict[tuple[str, str], Subschema | None] = {}
        self._resources: dict[str, Subschema] | None = None
        self._anchors: dict[tuple[str, str], Subschema] = {}
        self._dynamic: dict[tuple[str, str | bool], Subschema] = {}
        self._roots = {uri: self._root_of(uri, value) for uri, value in documents.items()}
        self.root = self._roots[root]

    def _root_of(self, uri: str, value: Any) -> Subschema:
        draft = draft_of(value)
        own = own_id(value, draft)
        base = join_uri(uri, own).removesuffix("#") if own else uri
        return Subschema(value, base, uri, "", draft)

    def of(self, uri: str) -> Subschema:
        """Return the whole document at a URI."""
        return self._roots[uri]

    def every(self) -> Iterator[Any]:
        """Yield every object of every document that may be a schema."""
        for _, document in self._documents.values():
            for _, schema in subschemas(document):
                yield schema

    def below(self, parent: Subschema, *steps: str | int) -> Subschema:
        """Return the subschema at a path below another; raise LookupError when there is none."""
        for step in steps:
            parent = self._child(parent, step)
        return parent

    def _child(self, parent: Subschema, step: str | int) -> Subschema:
        key = (id(parent.schema), step)
        found = self._children.get(key)
        if found is None:
            value = parent.schema[step]
            own = own_id(value, draft_of(value, parent.draft))
            base = join_uri(parent.base, own).removesuffix("#") if own else parent.base
            pointer = f"{parent.pointer}/{escape(step)}"
            draft = draft_of(value, parent.draft) if own else parent.draft
            found = self._children[key] = Subschema(value, base, parent.document, pointer, draft)
        return found

    def resolve(self, base: str, reference: str) -> Subschema | None:
        """Return the subschema that a reference leads to, None when it is in no document."""
        key = (base, reference)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(join_uri(base, reference))
        return self._resolved[key]

    def _resolve(self, uri: str) -> Subschema | None:
        name, _, fragment = uri.partition("#")
        fragment = unquote(fragment)
        resource = self._resource(name)
        if resource is None:
            return None
        if fragment and not fragment.startswith("/"):
            return self._anchors.get((resource.base, fragment))
        try:
            for step in parse(fragment):
                resource = self._child(resource, int(step) if isinstance(resource.schema, list) else step)
        except (LookupError, TypeError, ValueError):
            return None
        return resource

    def _resource(self, uri: str) -> Subschema | None:
        if self._resources is None:
            self._resources = {}
            for root in self._roots.values():
                self._scan(root, self._resources)
        named = self._resources.get(uri)
        if named is not None:
            return named
        known = self._documents.get(unquote(uri))
        return self._roots[known[0]] if known else None

    def _scan(self, root: Subschema, resources: dict[str, Subschema]) -> None:
        """Note each `$id` and each anchor of a document."""
        resources.setdefault(root.base, root)
        for path, schema, base, _, own in placed(root.schema, root.document):
            if own is not None:
                resources.setdefault(base, self.below(root, *path))
            older = schema.get("$id", schema.get("id"))
            anchors = [older[1:] if isinstance(older, str) and older.startswith("#") else None]
            for name in (*anchors, schema.get("$anchor"), schema.get("$dynamicAnchor")):
                if isinstance(name, str):
                    self._anchors.setdefault((base, name), self.below(root, *path))
            for keyword in DYNAMIC_ANCHORS.values():
                if isinstance(name := schema.get(keyword), str | bool) and name:
                    self._dynamic.setdefault((base, name), self.below(root, *path))

    def dynamic_anchors(self, name: str | bool) -> list[Subschema]:
        """Return every subschema with a dynamic anchor of that name; True stands for `$recursiveAnchor`."""
        self._resource("")
        return [found for (_, anchor), found in self._dynamic.items() if anchor is name or anchor == name]

    def in_place(self, first: Iterable[Subschema]) -> Iterator[Subschema]:
        """Yield the subschemas that are objects, and all that may apply to the same value because of them."""
        waiting, seen = list(first), set[int]()
        while waiting:
            sub = waiting.pop()
            if not isinstance(sub.schema, dict) or id(sub.schema) in seen:
                continue
            seen.add(id(sub.schema))
            yield sub
            waiting += self._beside(sub)
            for keyword in ("$ref", *DYNAMIC_ANCHORS):
                reference = sub.schema.get(keyword)
                if not isinstance(reference, str):
                    continue
                if (target := self.resolve(sub.base, reference)) is not None:
                    waiting.append(target)
                if keyword in DYNAMIC_ANCHORS:  # whichever way leads to it
                    waiting += self.dynamic_anchors(reference.rpartition("#")[2] or True)

    def _beside(self, sub: Subschema) -> Iterator[Subschema]:
        """Yield the subschemas below one that apply to the same value."""
        for keyword in _LISTS:
            if isinstance(listed := sub.schema.get(keyword), list):
                yield from (self.below(sub, keyword, index) for index in range(len(listed)))
        for keyword in _SINGLE:
            if keyword in sub.schema:
                yield self.below(sub, keyword)
        for keyword in _MAPS:
            if isinstance(mapped := sub.schema.get(keyword), dict):
                yield from (self.below(sub, keyword, name) for name in mapped)

    def resolve_dynamic(
        self, scope: tuple[str, ...], base: str, keyword: str, reference: str
    ) -> Subschema | None:
        """Return what a dynamic reference leads to.

        `scope` is the bases of the resources on the way to it, outermost first.
        """
        target = self.resolve(base, reference)
        if target is None or not isinstance(target.schema, dict):
            return target
        anchor = target.schema.get(DYNAMIC_ANCHORS[keyword])
        if keyword == "$dynamicRef" and anchor != reference.partition("#")[2]:
            return target
        if not anchor:
            return target
        return next((self._dynamic[b, anchor] for b in scope if (b, anchor) in self._dynamic), target)
