"""Many messages in one request: one result for each, in order, whether it was published or refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import msgspec
from starlette.responses import Response

from abe_router.errors import BackendError, BackendUnavailable
from abe_router.http.problem import Refusal
from abe_router.http.publish_problem import draining, outcome_unknown, publish_problem
from abe_router.http.site import HttpSource
from abe_router.operations.bulk import BulkPublisher, Item, LineBatch

NDJSON = "application/x-ndjson"
#: Most items of one request.
MAX_ITEMS = 100_000
#: Items in one batch: few, so that the server answers other requests in between.
BATCH_SIZE = 100
#: How long items are checked before other requests are answered, and how long in a thread, in seconds. It may
#: take a tenth of a second to find all violations of one payload.
QUICK, SLOW_BATCH = 0.005, 0.2
#: Bytes of results beyond which the problems of further items have only their titles.
MAX_RESULTS = 1024 * 1024
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


def too_many() -> Refusal:
    """Return the refusal of a request with more items than the limit."""
    return Refusal(413, "too-large", "The body is too large", f"the limit is {MAX_ITEMS:,} messages")


class BulkAnswer:
    """Publishes the items of one request, and collects their results.

    `thread` checks items that take long. It goes on after refused items. It ends when the backend fails, when
    the router drains, and at the limit of items. An item without a result was not published.
    """

    def __init__(self, bulk: BulkPublisher, source: HttpSource, thread: Executor, *, lines: bool) -> None:
        self._bulk, self._source, self._thread, self._are_lines = bulk, source, thread, lines
        self._is_slow, self._count = False, 0
        #: The results as they are sent.
        self._results = bytearray()
        self._next = 1
        self._end: Refusal | None = None

    async def publish(self, items: Sequence[Item]) -> None:
        """Publish items in batches; raise Refusal if it ends before the last of them."""
        published = 0
        while published < len(items):
            published += await self._publish(items[published : published + BATCH_SIZE])
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
            return Response(bytes(self._results), status, headers, NDJSON)
        return Response(b"[%b]" % bytes(self._results), status, headers, "application/json")

    async def _publish(self, items: Sequence[Item]) -> int:
        """Publish some items from the first one on; return their number."""
        if self._source.readiness.draining:
            raise draining()
        if self._count + len(items) > MAX_ITEMS:
            raise too_many()
        try:
            backend = self._source.backend
        except BackendUnavailable as error:
            raise publish_problem(error) from error
        batch = await self._checked(items)
        try:
            duplicates = {id(message) for message in await self._bulk.append(backend, batch)}
        except BackendError as error:
            self._end = outcome_unknown(error, min(seconds for _, seconds in batch.messages))
            self._report(batch, {number: self._end.content() for number in batch.numbers})
            raise self._end from error
        accepted = zip(batch.numbers, batch.messages, strict=True)
        self._report(
            batch, {number: Published(each.id, id(each) in duplicates) for number, (each, _) in accepted}
        )
        return batch.size

    async def _checked(self, items: Sequence[Item]) -> LineBatch:
        """Check items: quick ones at once, and slow ones in a thread, so that other requests are answered."""
        if self._is_slow:
            loop = asyncio.get_running_loop()
            batch, took = await loop.run_in_executor(self._thread, self._prepare, items, SLOW_BATCH)
        else:
            batch, took = self._prepare(items, QUICK)
        self._is_slow = took > QUICK
        return batch

    def _prepare(self, items: Sequence[Item], seconds: float) -> tuple[LineBatch, float]:
        """Return the first items, as many as are checked in that time, and the processor time."""
        began = time.thread_time()
        batch = self._bulk.prepare(items, seconds=seconds)
        return batch, time.thread_time() - began

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
        if len(self._results) > MAX_RESULTS and not isinstance(result, Published | PublishedLine):
            result = {name: result[name] for name in ("line", "title", "status") if name in result}
        if self._results and not self._are_lines:
            self._results += b","
        self._results += _encode(result)
        if self._are_lines:
            self._results += b"\n"
        self._count += 1
        self._next = number + 1
