"""What a file asks of the messages of one key, and the message that meets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from abe_router.errors import PayloadInvalid
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.message import Message, check_headers, check_id, new_id
from abe_router.schema import Schema


@dataclass(frozen=True, slots=True)
class MessageContract:
    """Messages of the key satisfy each of `schemas`, and are known again as `deduplication` says.

    `known` says whether the file mentions the key, by name or by a pattern, or allows any.
    """

    schemas: tuple[Schema, ...] = ()
    deduplication: Deduplication | None = None
    known: bool = True

    def message(
        self, key: str, body: bytes, payload: Any, headers: Mapping[str, str], id: str | None = None
    ) -> Message:
        """Return a message made now of `body`, which reads `payload`.

        Raise PayloadInvalid, with every violation of every schema, IdInvalid, or PayloadUnencodable when the
        headers are not text.
        """
        for schema in self.schemas:
            if not schema.is_valid(payload):
                raise PayloadInvalid(key, [v for s in self.schemas for v in s.violations(payload)])
        if self.deduplication is not None:
            id = self.deduplication.id(key, payload, headers, id)
        if headers:
            check_headers(headers)
        return Message(new_id() if id is None else check_id(key, id), key, body, headers, time())

    def window(self, given: str | None = None) -> float:
        """Return for how many seconds an id is remembered, when `given` is what was said of it."""
        return 0.0 if self.deduplication is None else self.deduplication.window_of(given)
