"""Many messages in one request: one result for each, in order, whether it was published or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from abe_router.errors import BackendUnavailable
from abe_router.http.problem import Refusal
from abe_router.http.publish_problem import draining, outcome_unknown, publish_problem
from abe_router.http.site import HttpSource
from abe_router.operations.bulk import BulkPublisher, Item, LineBatch
from abe_router.operations.errors import OutcomeUnknown

NDJSON = "application/x-ndjson"
#: Most items of one request.
MAX_ITEMS = 100_000
#: Items in one batch: few, so that the server answers other requests in between.
BATCH_SIZE = 100
_encode = msgspec.json.Encoder().encode


class Published(msgspec.Struct, frozen=True, omit_defaults=True):
    """The id of a message that was published. A duplicate was published before, and is not stored again."""

    id: str
    duplicate: bool = False


class PublishedLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a line that was published; `line` counts from 1."""

    line: int
    id: str
    duplicate: bool = False


class BulkAnswer:
    """Publishes the items of one request, and collects their results.

    It goes on after refused items. It ends when the backend fails, when the router drains, and at the limit
    of items. An item without a result was not published.
    """

    def __init__(self, bulk: BulkPublisher, source: HttpSource, *, lines: bool) -> None:
        self._bulk, self._source, self._are_lines = bulk, source, lines
        self._results: list[bytes] = []
        self._next = 1
        self._end: Refusal | None = None

    async def publish(self, items: Sequence[Item]) -> None:
        """Publish items in batches; raise Refusal if it ends before the last of them."""
        for start in range(0, len(items), BATCH_SIZE):
            await self._publish(items[start : start + BATCH_SIZE])
            await asyncio.sleep(0)  # a backend in memory lets no other request in

    def end(self, refused: Refusal) -> None:
        """Note why the next item was not published; raise Refusal if none was tried before it."""
        if self._end is None:
            if not self._results:
                raise refused
            self._end = refused
            self._add(self._next, refused.content())

    def response(self) -> Response:
        """Return the results. The status is 200, or that of the problem that ended the request."""
        status, headers = 200, {}
        if self._end is not None:
            status, headers = self._end.status, self._end.members.get("headers", {})
        if self._are_lines:
            return Response(b"".join(self._results), status, headers, NDJSON)
        return Response(b"[" + b",".join(self._results) + b"]", status, headers, "application/json")

    async def _publish(self, items: Sequence[Item]) -> None:
        if self._source.readiness.draining:
            raise draining()
        if len(self._results) + len(items) > MAX_ITEMS:
            detail = f"the limit is {MAX_ITEMS:,} messages in one request"
            raise Refusal(413, "too-large", "The body is too large", detail)
        try:
            backend = self._source.backend
        except BackendUnavailable as error:
            raise publish_problem(error) from error
        batch = self._bulk.prepare(items)
        try:
            duplicates = {id(message) for message in await self._bulk.append(backend, batch)}
        except OutcomeUnknown as error:
            self._end = outcome_unknown(error, error.window)
            self._report(batch, {number: self._end.content() for number in batch.numbers})
            raise self._end from error
        accepted = zip(batch.numbers, batch.messages, strict=True)
        self._report(
            batch, {number: Published(each.id, id(each) in duplicates) for number, (each, _) in accepted}
        )

    def _report(self, batch: LineBatch, results: dict[int, Any]) -> None:
        """Add the results of a batch, in the order of its items."""
        for rejected in batch.rejected:
            results[rejected.line] = publish_problem(rejected.error).content()
        for number in sorted(results):
            self._add(number, results[number])

    def _add(self, number: int, result: Any) -> None:
        if self._are_lines:
            if isinstance(result, Published):
                result = PublishedLine(number, result.id, result.duplicate)
            else:
                result = {"line": number, **result}
        self._results.append(_encode(result) + b"\n" if self._are_lines else _encode(result))
        self._next = number + 1
