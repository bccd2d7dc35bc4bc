"""The table of all routes of one file, and the difference between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from abe_router.diagnostic import Diagnostic
from abe_router.messages.cache import remember
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.pattern import PatternIndex, check_key, is_wild, naming
from abe_router.observe.trace_context import TraceOptions
from abe_router.routing.case import Case
from abe_router.routing.contract import ContractIndex, MessageContract, SchemaBinding
from abe_router.routing.http_options import HttpOptions
from abe_router.routing.route import Route
from abe_router.text import redact_url


@dataclass(frozen=True, slots=True)
class TableDiff:
    """What a change from one table to another does; routes in the order of their table."""

    added: tuple[Route, ...] = ()
    removed: tuple[Route, ...] = ()
    changed: tuple[tuple[Route, Route], ...] = ()
    kept: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the file says about a key or a consumer. It changes neither messages nor how they are handled."""

    description: str | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None


@dataclass(frozen=True)
class RouteTable:
    """All routes of one file.

    `keys` are the keys and patterns of the file, with or without consumers. `retain` maps keys and patterns
    to the seconds that settled messages are kept. `deduplications` maps them to the source and the window of
    ids. `revision` is the hash of the file and everything it names. `sources` are the files that were read.
    `backend_chosen_by` says what chose the backend. `cases` are its tests. `case_faults` are the warnings in
    them that `check` reports as errors, by case. `http` are the options of its HTTP server, if the file has
    them. `metadata` is that of keys, patterns and routes, by name.
    """

    routes: tuple[Route, ...] = ()
    keys: tuple[str, ...] = ()
    bindings: tuple[SchemaBinding, ...] = ()
    backend: str = "memory://"
    backend_chosen_by: str = "the argument"
    prefix: str = ""
    unrouted: Literal["error", "allow"] = "error"
    formats: bool = True
    retain: Mapping[str, float] = field(default_factory=dict)
    deduplications: Mapping[str, Deduplication] = field(default_factory=dict)
    revision: str = ""
    path: Path | None = None
    sources: frozenset[Path] = frozenset()
    cases: tuple[Case, ...] = ()
    case_faults: Mapping[str, tuple[Diagnostic, ...]] = field(default_factory=dict)
    http: HttpOptions | None = None
    warnings: tuple[Diagnostic, ...] = ()
    trace: TraceOptions = field(default_factory=TraceOptions)
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    _matched: dict[str, tuple[Route, ...]] = field(default_factory=dict, repr=False, compare=False)
    _contracts: dict[str, MessageContract] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shown_backend(self) -> str:
        """The URL of the backend without credentials, and what chose it."""
        return f"{redact_url(self.backend)} ({self.backend_chosen_by})"

    @cached_property
    def by_name(self) -> Mapping[str, Route]:
        """The routes by identity."""
        return {route.name: route for route in self.routes}

    def match(self, key: str) -> tuple[Route, ...]:
        """Return the routes that get messages of `key`, in the order of the file."""
        found = self._matched.get(key)
        if found is None:
            found = tuple(self._routes_by_pattern.match(key))
            remember(self._matched, key, found)
        return found

    def contract(self, key: str) -> MessageContract:
        """Return the message contract of `key`. Raise KeyInvalid if the key is malformed."""
        found = self._contracts.get(key)
        if found is None:
            check_key(key)
            known = self.unrouted == "allow" or bool(self._naming.match(key))
            found = self._contract_index.contract(key, known=known)
            remember(self._contracts, key, found)
        return found

    def metadata_of(self, name: str) -> Metadata:
        """Return the metadata of a key, a pattern or a route.

        A route has the tags of its key besides its own. Without a description or an owner, it has that of
        its key.
        """
        own = self.metadata.get(name, Metadata())
        key, slash, _ = name.partition("/")
        if not slash:
            return own
        outer = self.metadata.get(key, Metadata())
        tags = tuple(dict.fromkeys((*outer.tags, *own.tags)))
        return Metadata(own.description or outer.description, tags, own.owner or outer.owner)

    @cached_property
    def concrete_keys(self) -> tuple[str, ...]:
        """The keys of the file that are not patterns."""
        return tuple(key for key in self.keys if not is_wild(key))

    @cached_property
    def _routes_by_pattern(self) -> PatternIndex[Route]:
        return PatternIndex((route.key, route) for route in self.routes)

    @cached_property
    def _naming(self) -> PatternIndex[str]:
        return naming(self.keys)

    @cached_property
    def _contract_index(self) -> ContractIndex:
        return ContractIndex(self.bindings, self.deduplications)

    def diff(self, other: RouteTable) -> TableDiff:
        """Return what a change from this table to `other` adds, removes, changes and keeps, by value."""
        old, new = self.by_name, other.by_name
        return TableDiff(
            added=tuple(r for name, r in new.items() if name not in old),
            removed=tuple(r for name, r in old.items() if name not in new),
            changed=tuple((old[name], r) for name, r in new.items() if name in old and old[name] != r),
            kept=tuple(r for name, r in new.items() if name in old and old[name] == r),
        )
