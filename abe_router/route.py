"""Routes and the table of them, as values.

A Route holds live objects (function, compiled schema), so a test needs no YAML; it compares by value, so
a reload knows what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from abe_router.case import Case
from abe_router.deduplication import Deduplication
from abe_router.diagnostic import Diagnostic
from abe_router.emit import Emit
from abe_router.handler import Handler
from abe_router.pattern import check_key, is_wild, matches
from abe_router.retry import RetryPolicy
from abe_router.schema import Schema
from abe_router.terms import Terms

V = TypeVar("V")
OnInvalid = Literal["dead_letter", "drop", "deliver"]


@dataclass(frozen=True, slots=True)
class Contract:
    """The schema that one entry of the file puts on every message whose key matches `pattern`."""

    pattern: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Batch:
    """Hand over up to `size` messages at once, waiting at most `wait` seconds for them to come together."""

    size: int
    wait: float = 0.05


@dataclass(frozen=True, slots=True)
class Route:
    """One consumer: where its messages come from, who handles them, and by which rules.

    Durations are in seconds. `contracts` are those whose pattern meets this route's; a message must
    satisfy each one that matches its key. `max_deliveries` of None means retry attempts plus 5.
    `start` is in seconds since the epoch: 0 is the earliest message kept, infinity the next to come.
    `rate` is in messages a second, over all processes. `order_by` is a JSON pointer: messages of one key
    with the same value there are handled one after the other, in the order they were accepted.
    """

    key: str
    group: str
    handler: Handler
    contracts: tuple[Contract, ...] = ()
    when: Schema | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    concurrency: int = 10
    timeout: float = 30.0
    lease: float = 30.0
    drain: float = 30.0
    max_deliveries: int | None = None
    on_invalid: OnInvalid = "dead_letter"
    dead_letter: bool = True
    start: float = 0.0
    paused: bool = False
    batch: Batch | None = None
    rate: float | None = None
    order_by: str | None = None
    emit: Emit | None = None

    @property
    def name(self) -> str:
        """Its identity, `key/group`."""
        return f"{self.key}/{self.group}"

    @property
    def delivery_limit(self) -> int:
        """How often one message may be handed out before it is dead-lettered unhandled."""
        return self.max_deliveries if self.max_deliveries is not None else self.retry.attempts + 5


@dataclass(frozen=True, slots=True)
class TableDiff:
    """What a change from one table to another does; routes in the order of their table."""

    added: tuple[Route, ...] = ()
    removed: tuple[Route, ...] = ()
    changed: tuple[tuple[Route, Route], ...] = ()
    kept: tuple[Route, ...] = ()


@dataclass(frozen=True)
class RouteTable:
    """All routes of one file.

    `keys` are the keys and patterns of the file, with or without consumers. `retain` is by key or pattern
    for how many seconds messages are kept that every group has settled, and `deduplications` by which ids
    they are known again. `digest` is the hash of the file and all it names. `sources` are the files it was
    read from. `cases` are its tests.
    """

    routes: tuple[Route, ...] = ()
    keys: tuple[str, ...] = ()
    contracts: tuple[Contract, ...] = ()
    backend: str = "memory://"
    prefix: str = ""
    unrouted: Literal["error", "allow"] = "error"
    retain: Mapping[str, float] = field(default_factory=dict)
    deduplications: Mapping[str, Deduplication] = field(default_factory=dict)
    digest: str = ""
    path: Path | None = None
    sources: frozenset[Path] = frozenset()
    cases: tuple[Case, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()
    _matched: dict[str, tuple[Route, ...]] = field(default_factory=dict, repr=False, compare=False)
    _terms: dict[str, Terms] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def by_name(self) -> Mapping[str, Route]:
        """The routes by identity."""
        return {route.name: route for route in self.routes}

    def match(self, key: str) -> tuple[Route, ...]:
        """Return the routes that get messages of `key`, in the order of the file."""
        found = self._matched.get(key)
        if found is None:
            found = tuple(r for r in self.routes if matches(r.key, key))
            _remember(self._matched, key, found)
        return found

    def terms(self, key: str) -> Terms:
        """Return what the file asks of messages of `key`; raise KeyInvalid when it is malformed."""
        found = self._terms.get(key)
        if found is None:
            check_key(key)
            schemas = tuple(dict.fromkeys(c.schema for c in self.contracts if matches(c.pattern, key)))
            said = self.deduplications.items()
            found = Terms(
                known=bool(schemas)
                or self.unrouted == "allow"
                or any(matches(pattern, key) for pattern in self.keys),
                schemas=schemas,
                deduplication=Deduplication.combined(d for pattern, d in said if matches(pattern, key)),
            )
            _remember(self._terms, key, found)
        return found

    @cached_property
    def concrete_keys(self) -> tuple[str, ...]:
        """The keys of the file that are not patterns."""
        return tuple(key for key in self.keys if not is_wild(key))

    def diff(self, other: RouteTable) -> TableDiff:
        """Return what a change from this table to `other` adds, removes, changes and keeps, by value."""
        old, new = self.by_name, other.by_name
        return TableDiff(
            added=tuple(r for name, r in new.items() if name not in old),
            removed=tuple(r for name, r in old.items() if name not in new),
            changed=tuple((old[name], r) for name, r in new.items() if name in old and old[name] != r),
            kept=tuple(r for name, r in new.items() if name in old and old[name] == r),
        )


#: Keys remembered in a table's caches; beyond it they are emptied, so that ever new keys cannot fill memory.
_REMEMBERED = 10_000


def _remember(cache: dict[str, V], key: str, value: V) -> None:
    if len(cache) >= _REMEMBERED:
        cache.clear()
    cache[key] = value
