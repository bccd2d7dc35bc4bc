"""A compiled JSON Schema, as a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abe_router.errors import SchemaFault, Violation
from abe_router.schema.explanation import Explainer
from abe_router.schema.index import SchemaIndex
from abe_router.schema.paths import PathAnswer, PathSteps


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema, ready to check payloads. Two are equal when their digests are.

    `name` is how messages call it. `digest` covers the document, every document it refers to, and whether
    formats are asserted, so that reformatting or moving a file changes nothing. `is_valid` is the compiled
    check itself, for the hot path. `sources` are the files it was made of. `ignored` are the keywords that
    check nothing, but certainly should.

    Payloads are values as decoded from JSON, nested at most as deep as a message may be. A deeper one,
    built in memory, can exhaust the native stack of the checker.
    """

    digest: str
    name: str = field(compare=False)
    document: Any = field(compare=False, repr=False)
    is_valid: Callable[[Any], bool] = field(compare=False, repr=False)
    sources: frozenset[Path] = field(compare=False, repr=False)
    ignored: tuple[SchemaFault, ...] = field(compare=False, repr=False)
    _explainer: Explainer = field(compare=False, repr=False)

    def violations(self, value: Any) -> tuple[Violation, ...]:
        """Return the ways in which the value breaks the schema, none when it is valid.

        It takes bounded time and returns at most 1,000 violations. When it cannot describe all of them, the
        first has a note that says so. It raises nothing.
        """
        return () if self.is_valid(value) else self._explainer.explain(value)

    @property
    def has_sensitive(self) -> bool:
        """Whether the schema marks any part of a value as `x-sensitive`."""
        return self._explainer.has_sensitive()

    def marks(self, pointer: str) -> bool:
        """Return whether the schema marks the value at a JSON pointer, or what contains it, as sensitive."""
        return self._explainer.marks(pointer)

    def path(self, steps: PathSteps, deadline: float, kinds: frozenset[str] = frozenset()) -> PathAnswer:
        """Return what the schema says about a path to a value of one of the JSON types `kinds`.

        Without `kinds`, the value may be of any type. After `deadline`, in seconds of this thread's processor
        time, any path is possible. It raises nothing.
        """
        return self._explainer.path(steps, kinds, deadline)

    def index(self) -> SchemaIndex:
        """Return a new index of its document and of every document that it refers to."""
        return self._explainer.index()

    def name_of(self, uri: str) -> str:
        """Return the path of a document relative to the folder of schemas, or its URI."""
        return self._explainer.name_of(uri)

    def mask(self, value: Any) -> Any:
        """Return the value with `(masked)` in place of each part that the schema marks as `x-sensitive`.

        It takes bounded time, and masks the whole value if that does not suffice. It raises nothing.
        """
        return self._explainer.mask(value)

    def sensitive_parts(self, value: Any) -> Sequence[Any] | None:
        """Return the parts of the value that the schema marks as `x-sensitive`.

        It is None if a part does not have its shape, so that it may hide something sensitive, or if bounded
        time does not suffice. It raises nothing.
        """
        return self._explainer.sensitive_parts(value)

    def names(self) -> frozenset[str]:
        """Return the names of members that the schema writes itself, which are no secrets."""
        return self._explainer.names()
