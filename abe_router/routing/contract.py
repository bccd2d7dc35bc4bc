"""The message contract of a key: what its messages must satisfy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from abe_router.errors import PayloadInvalid
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.message import Message, check_headers, check_id, decode, encode_for_check, new_id
from abe_router.messages.pattern import PatternIndex
from abe_router.schema import Schema


@dataclass(frozen=True, slots=True)
class SchemaBinding:
    """The schema that one entry of the file requires for every message whose key matches `pattern`."""

    pattern: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class MessageContract:
    """Messages of the key satisfy each of `schemas`. `deduplication` says how a duplicate is recognised.

    `known` says whether the file names the key, or a pattern of it that is not a catch-all, or allows any.
    """

    schemas: tuple[Schema, ...] = ()
    deduplication: Deduplication | None = None
    known: bool = True

    def message_of(
        self, key: str, payload: Any, headers: Mapping[str, str], id: str | None = None
    ) -> Message:
        """Return a new message of a payload; raise as `message` does, or PayloadUnencodable."""
        # An id is read from what the body decodes to.
        body, value = encode_for_check(payload, decoded=self.deduplication is not None)
        return self.message(key, body, value, headers, id)

    def message(
        self, key: str, body: bytes, payload: Any, headers: Mapping[str, str], id: str | None = None
    ) -> Message:
        """Return a new message of `body`, which decodes to `payload`, or as `message_of` passes it.

        Raise PayloadInvalid, with the violations of every schema, IdInvalid, or PayloadUnencodable when the
        headers are not text.
        """
        is_valid = True
        try:
            for schema in self.schemas:
                if not schema.is_valid(payload):
                    is_valid = False
                    break
        except ValueError:  # for a UUID, which has no counterpart in JSON
            is_valid = False
        if not is_valid:
            sent = decode(body)
            if violations := [v for schema in self.schemas for v in schema.violations(sent)]:
                raise PayloadInvalid(key, violations)
        if self.deduplication is not None:
            id = self.deduplication.id(key, payload, headers, id)
        if headers:
            check_headers(headers)
        return Message(new_id() if id is None else check_id(key, id), key, body, headers, time())

    def mask(self, payload: Any) -> Any:
        """Return a payload with `(masked)` in place of what any of the schemas marks as `x-sensitive`."""
        for schema in self.schemas:
            payload = schema.mask(payload)
        return payload

    def names(self) -> frozenset[str]:
        """Return the names of members that the schemas write themselves, which are no secrets."""
        return frozenset[str]().union(*(schema.names() for schema in self.schemas))

    def window(self, given: str | None = None) -> float:
        """Return how long an id is remembered, in seconds; `given` is the id that the publisher set."""
        return 0.0 if self.deduplication is None else self.deduplication.window_of(given)


class ContractIndex:
    """Makes the contract of any key, from the bindings and the deduplications of all patterns."""

    def __init__(
        self, bindings: Iterable[SchemaBinding], deduplications: Mapping[str, Deduplication]
    ) -> None:
        self._schemas = PatternIndex((each.pattern, each.schema) for each in bindings)
        self._deduplications = PatternIndex(deduplications.items())

    def contract(self, key: str, *, known: bool = True) -> MessageContract:
        """Return the contract of a key. `known` says whether the file names it."""
        schemas = tuple(dict.fromkeys(self._schemas.match(key)))
        deduplication = Deduplication.combined(self._deduplications.match(key))
        return MessageContract(schemas, deduplication, known)
