"""Publishing over HTTP: one payload, lines of JSON, or CloudEvents.

Messages are checked and appended by the functions of `abe-router publish`, so both accept the same messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import AbeRouterError, BackendError
from abe_router.http.access import Role, require
from abe_router.http.body import BodyBudget, BodyShare, body_parts, read_body
from abe_router.http.cloudevents import BATCHED, STRUCTURED, CloudEvent, read_batch
from abe_router.http.endpoint import AnyOf, Content, Endpoint, Parameter, Problem, json_content
from abe_router.http.problem import Refusal
from abe_router.http.publish_bulk import (
    BATCH_SIZE,
    MAX_ITEMS,
    NDJSON,
    BulkAnswer,
    Published,
    PublishedLine,
    too_many,
)
from abe_router.http.publish_problem import draining, outcome_unknown, publish_problem
from abe_router.http.publish_request import (
    NDJSON_NAMES,
    media_type,
    message_headers,
    names_id,
    read_content,
    refuse_idempotency_key,
)
from abe_router.http.site import HttpSource, Site, json_response
from abe_router.operations.bulk import BulkPublisher, Item, LineContent, LineSplitter
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import append, prepare, window

_IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "The id of the message, for a key that has `dedupe`. A repetition within that time is a duplicate.",
    "header",
)
_HEADERS = (
    Parameter("Abe-Header-NAME", "A header of the messages, under the name `NAME` in lower case.", "header"),
    Parameter("traceparent", "The trace context; `tracestate` and allowed `baggage` go with it.", "header"),
)
#: Longest batch of events, in bytes.
MAX_BATCH = 8 * 1024 * 1024
#: Longest payload that is checked at once, in bytes. A longer one may have many violations.
SMALL = 1_000


def routes(site: Site, budget: BodyBudget | None = None) -> list[Route]:
    """Return the endpoints. The bodies of their requests share `budget`."""
    publishing = Publishing(site.source, budget or BodyBudget())
    events = AnyOf((Published, Problem), many=True)
    answers = {
        202: json_content(Published, "one message was published"),
        200: Content(
            "one message was a duplicate, or one result for each line or event, in order",
            {"application/json": AnyOf((Published, events)), NDJSON: AnyOf((PublishedLine, Problem))},
        ),
    }
    problems = {
        400: "the body, a header, an event or the key is malformed",
        404: "no route has the key",
        413: f"a payload is over 1 MiB, a batch of events over 8 MiB, or there are over {MAX_ITEMS:,} lines",
        415: "the type, charset or encoding of the body is not supported",
        422: "the payload breaks its schema, as `errors` says, or has no valid id",
        429: "the server is publishing too much at once: wait as `Retry-After` says",
        503: "the router drains, or the backend fails: `outcome-unknown` may have been published, others not",
    }
    shared: dict[str, Any] = {"answers": answers, "problems": problems}
    return [
        Endpoint(
            "POST",
            "/v1/publish/{key}",
            publishing.publish,
            Role.PUBLISHER,
            "Publish messages of one key",
            details="The body is a payload, lines that are payloads, a CloudEvent, or a batch of events.",
            parameters=[_IDEMPOTENCY_KEY, *_HEADERS],
            body=Content(
                "a payload, payloads, or events",
                {
                    "application/json": Any,
                    NDJSON: Any,
                    STRUCTURED: CloudEvent,
                    BATCHED: list[CloudEvent],
                },
            ),
            **shared,
        ),
        Endpoint(
            "POST",
            "/v1/publish",
            publishing.publish_keyed,
            Role.PUBLISHER,
            "Publish messages that name their keys",
            details="Each line is an object with `key` and `payload`. The type of a CloudEvent is its key.",
            parameters=_HEADERS,
            body=Content(
                "lines, or events",
                {NDJSON: LineContent, STRUCTURED: CloudEvent, BATCHED: list[CloudEvent]},
            ),
            **shared,
        ),
    ]


class Publishing:
    """Answers the requests that publish."""

    def __init__(self, source: HttpSource, budget: BodyBudget) -> None:
        self._source, self._budget = source, budget
        #: One thread for checks that take long: more would keep the event loop from running.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="http-publish")

    async def publish(self, request: Request) -> Response:
        """Publish the messages of the key in the path; raise Refusal if all of them were refused."""
        return await self._publish(request, request.path_params["key"])

    async def publish_keyed(self, request: Request) -> Response:
        """Publish messages that name their keys; raise Refusal if all of them were refused."""
        return await self._publish(request, None)

    async def _publish(self, request: Request, key: str | None) -> Response:
        require(request, Role.PUBLISHER, key)
        if self._source.readiness.draining:
            raise draining()
        kind, table = media_type(request), self._source.table
        with self._budget.share() as share, _refusing():
            if kind in NDJSON_NAMES:
                return await _publish_lines(request, share, self._bulk(request, table, key, lines=True))
            if kind == BATCHED:
                answer = self._bulk(request, table, key, lines=False)
                text = await read_body(request, share, MAX_BATCH)
                read = partial(read_batch, text, names_id(table), MAX_ITEMS)
                events = await asyncio.get_running_loop().run_in_executor(self._thread, read)
                if events is None:
                    raise too_many()
                return await _publish_all(events, answer)
            content = await read_content(request, share, kind, key, table)
            require(request, Role.PUBLISHER, content.key)
            return await self._publish_one(content, table)

    async def _publish_one(self, content: LineContent, table: RouteTable) -> Response:
        body = bytes(content.payload)
        check = partial(prepare, table, content.key, body, headers=content.headers, id=content.id)
        if len(body) <= SMALL:
            message = check()
        else:
            message = await asyncio.get_running_loop().run_in_executor(self._thread, check)
        seconds = window(table, content.key, content.id)
        backend = self._source.backend
        try:
            is_duplicate = bool(await append(backend, [(message, seconds)]))
        except BackendError as error:
            raise outcome_unknown(error, seconds, id=message.id) from error
        return json_response(Published(message.id, is_duplicate), 200 if is_duplicate else 202)

    def _bulk(self, request: Request, table: RouteTable, key: str | None, *, lines: bool) -> BulkAnswer:
        refuse_idempotency_key(request, "each line or event has its own id")
        caller = require(request, Role.PUBLISHER, key)
        bulk = BulkPublisher(
            table,
            key=key,
            headers=message_headers(request, table),
            allows=lambda each: caller.allows(Role.PUBLISHER, each),
        )
        return BulkAnswer(bulk, self._source, self._thread, lines=lines)


async def _publish_lines(request: Request, share: BodyShare, answer: BulkAnswer) -> Response:
    """Publish lines as they arrive, so only a part of the body is in memory."""
    splitter = LineSplitter()
    waiting: list[Item] = []
    try:
        async for part in body_parts(request):
            share.resize(splitter.size + len(part))
            waiting += splitter.feed(part)
            if len(waiting) >= BATCH_SIZE:
                whole = len(waiting) // BATCH_SIZE * BATCH_SIZE
                await answer.publish(waiting[:whole])
                del waiting[:whole]
        await answer.publish([*waiting, *splitter.finish()])
    except Refusal as refused:
        answer.end(refused)
    return answer.response()


async def _publish_all(items: Sequence[Item], answer: BulkAnswer) -> Response:
    try:
        await answer.publish(items)
    except Refusal as refused:
        answer.end(refused)
    return answer.response()


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn an error of publishing into its problem."""
    try:
        yield
    except AbeRouterError as error:
        raise publish_problem(error) from error
