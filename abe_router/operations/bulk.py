"""Publishes a stream of lines (NDJSON) in order, in batches, with an error for each rejected line.

A payload is sent as the bytes of its line. JSON is checked but not encoded again, so numbers keep every
digit.
"""

from __future__ import annotations

import math
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import msgspec

from abe_router.backend import Backend
from abe_router.errors import (
    BackendUnavailable,
    PayloadInvalid,
    PayloadMalformed,
    PublishError,
    PublishTimeout,
)
from abe_router.messages.message import MAX_BYTES, Message
from abe_router.operations.errors import KeyForbidden, OutcomeUnknown
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import append, prepare, window

#: Longest line, in bytes: the largest payload, with room for its key, headers and id.
MAX_LINE = 2 * MAX_BYTES
#: Lines in one batch: enough that the round trip takes little of the total time.
BATCH_SIZE = 500


class LineContent(msgspec.Struct, forbid_unknown_fields=True):
    """The message of a line: its key, payload, headers and id."""

    key: str
    payload: msgspec.Raw
    headers: dict[str, str] = {}
    id: str | None = None


_decode = msgspec.json.Decoder(LineContent).decode


class Item(Protocol):
    """One item of a stream or a batch that becomes one message. `number` counts from 1."""

    @property
    def number(self) -> int:
        """Its position."""

    def parse(self, key: str | None, headers: Mapping[str, str]) -> LineContent:
        """Return the content of the item; raise PublishError or PayloadMalformed if it is malformed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a stream; `number` counts from 1. `text` is None if it is longer than MAX_LINE."""

    number: int
    text: bytes | None

    def parse(self, key: str | None, headers: Mapping[str, str]) -> LineContent:
        """Return the content of the line; raise PayloadMalformed if it is too long or malformed.

        With a `key`, the whole line is the payload. Without it, the line must name its key. `headers` are
        added to the headers of the line, which take precedence.
        """
        if self.text is None:
            raise PayloadMalformed(f"the line is longer than {MAX_LINE:,} bytes")
        if key is not None:
            return LineContent(key, msgspec.Raw(self.text), dict(headers))
        try:
            found = _decode(self.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadMalformed(f'the line is not {{"key": ..., "payload": ...}}: {error}') from None
        found.headers = {**headers, **found.headers}
        return found


class LineSplitter:
    """Splits a stream into lines in bounded memory. Empty lines are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0
        self._started = False
        #: Whether the line that `_rest` begins is longer than MAX_LINE, so its bytes are not kept.
        self._too_long = False

    @property
    def size(self) -> int:
        """The bytes of the incomplete line that it keeps."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that a chunk completes."""
        if not self._started:
            chunk, self._started = chunk.removeprefix(BOM_UTF8), True
        *complete, self._rest = (self._rest + chunk).split(b"\n")
        texts: list[bytes | None] = [text if len(text) <= MAX_LINE else None for text in complete]
        if self._too_long and texts:
            texts[0], self._too_long = None, False
        if len(self._rest) > MAX_LINE:
            self._rest, self._too_long = b"", True
        elif self._too_long:
            self._rest = b""
        return self._numbered(texts)

    def finish(self) -> list[Line]:
        """Return the last line, if the stream ended without a line feed."""
        if not self._rest and not self._too_long:
            return []
        return self._numbered([None if self._too_long else self._rest])

    def _numbered(self, texts: Iterable[bytes | None]) -> list[Line]:
        lines = []
        for text in texts:
            self._number += 1
            if text is None or (text := text.strip()):
                lines.append(Line(self._number, text))
        return lines


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that was not published, and the reason. `key` is None if the line names no key."""

    line: int
    key: str | None
    error: PublishError | PayloadMalformed

    def to_json(self) -> dict[str, Any]:
        """Return the rejection as plain JSON values, with every violation of the schema."""
        violations = self.error.violations if isinstance(self.error, PayloadInvalid) else ()
        return {
            "line": self.line,
            "key": self.key,
            "reason": str(self.error),
            "violations": [asdict(violation) for violation in violations],
        }


@dataclass(frozen=True, slots=True)
class LineBatch:
    """The messages of some lines, each with its deduplication window, and the lines that were rejected.

    `numbers` are the numbers of the lines of the messages.
    """

    first: int
    last: int
    messages: tuple[tuple[Message, float], ...]
    rejected: tuple[RejectedLine, ...]
    numbers: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of lines."""
        return len(self.messages) + len(self.rejected)


class BulkResult(msgspec.Struct, frozen=True):
    """The number of lines for each result.

    `duplicates` were already published within their window. `unknown` are the lines of a batch in which the
    backend failed; they may have been published.
    """

    published: int = 0
    duplicates: int = 0
    rejected: int = 0
    unknown: int = 0


class BulkPublisher:
    """Publishes lines in batches, one batch after the other, so that messages keep the order of the lines.

    `allows` says whether the publisher may use a key; without it, every key is allowed.
    """

    def __init__(
        self,
        table: RouteTable,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        allow_unrouted: bool = False,
        allows: Callable[[str], bool] | None = None,
    ) -> None:
        self._table, self._key, self._headers = table, key, headers or {}
        self._allow_unrouted, self._allows = allow_unrouted, allows
        self._result = BulkResult()

    @property
    def result(self) -> BulkResult:
        """The result of all lines so far."""
        return self._result

    def prepare(self, lines: Sequence[Item], *, seconds: float = math.inf) -> LineBatch:
        """Check lines against the table. Return their messages and the rejected lines.

        After `seconds`, it stops behind a line; `size` of the batch is the number of lines that were checked.
        """
        until = time.perf_counter() + seconds
        messages: list[tuple[Message, float]] = []
        numbers: list[int] = []
        last = lines[0].number
        rejected: list[RejectedLine] = []
        for line in lines:
            key = self._key
            try:
                content = line.parse(self._key, self._headers)
                key = content.key
                messages.append(self._message(content))
                numbers.append(line.number)
            except (PublishError, PayloadMalformed) as error:
                rejected.append(RejectedLine(line.number, key, error))
            last = line.number
            if time.perf_counter() > until:
                break
        self._count(rejected=len(rejected))
        return LineBatch(lines[0].number, last, tuple(messages), tuple(rejected), tuple(numbers))

    async def append(
        self, backend: Backend, batch: LineBatch, timeout: float | None = None
    ) -> Sequence[Message]:
        """Append the messages of a batch; return the duplicates, which were not kept.

        `timeout`, in seconds, replaces the time limit of the backend. Raise PublishTimeout if none of them
        was sent in time, OutcomeUnknown if the backend fails otherwise during the call.
        """
        if not batch.messages:
            return ()
        count = len(batch.messages)
        try:
            duplicates = await append(backend, batch.messages, timeout)
        except BackendUnavailable as error:
            if isinstance(error, PublishTimeout) and not error.sent:
                raise
            self._count(unknown=count)
            raise OutcomeUnknown(
                str(error),
                first=batch.first,
                last=batch.last,
                count=count,
                window=min(seconds for _, seconds in batch.messages),
            ) from error
        except BaseException:
            self._count(unknown=count)
            raise
        self._count(published=count - len(duplicates), duplicates=len(duplicates))
        return duplicates

    def _message(self, content: LineContent) -> tuple[Message, float]:
        if self._allows is not None and not self._allows(content.key):
            raise KeyForbidden(f"the publisher may not use the key `{content.key}`")
        message = prepare(
            self._table,
            content.key,
            bytes(content.payload),
            headers=content.headers,
            id=content.id,
            allow_unrouted=self._allow_unrouted,
        )
        return message, window(self._table, content.key, content.id)

    def _count(self, *, published: int = 0, duplicates: int = 0, rejected: int = 0, unknown: int = 0) -> None:
        self._result = BulkResult(
            self._result.published + published,
            self._result.duplicates + duplicates,
            self._result.rejected + rejected,
            self._result.unknown + unknown,
        )
