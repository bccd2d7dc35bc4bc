"""The live tail as server-sent events: messages as they are accepted, sampled and masked.

Clients that ask for the same share one tail, and none is read while no client watches.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, caller_of, require
from abe_router.http.broadcast import Broadcast, format_event
from abe_router.http.endpoint import Content, Endpoint, Parameter, read_real
from abe_router.http.event_stream import MEDIA_TYPE, EventStream
from abe_router.http.problem import invalid
from abe_router.http.site import HttpSource, Site
from abe_router.messages.message import decode, encode
from abe_router.operations.errors import OperationError
from abe_router.operations.tail import SAMPLE, Tailed, check_tail, parse_filter, tail

#: A client that comes back within this time, in seconds, gets what it has missed.
RESUMED = 60.0
#: Most filters of one tail, and the longest filter, in characters.
MOST_FILTERS, MAX_FILTER = 10, 1_000

_DETAILS = """\
The answer is a stream of server-sent events. Payloads and headers need the role `reader`.

- `message` is a message. Its `omitted` is the number of messages before it that the sample leaves out.
- `skipped` says that messages were not read.
- `dropped` says how many events were dropped because the client is too slow.
- `error` says why the stream ends.
- `closing` says that the server ends."""


@dataclass(frozen=True)
class TailQuery:
    """What a client wants to see. `where` has pairs of a JSON pointer and a value as JSON."""

    pattern: str
    group: str | None
    where: tuple[tuple[str, bytes], ...]
    sample: float
    payloads: bool

    def values(self) -> Mapping[str, Any]:
        """Return the filter of the tail."""
        return {pointer: decode(value) for pointer, value in self.where}


def routes(site: Site) -> list[Route]:
    """Return the endpoint."""
    shared: dict[TailQuery, Broadcast] = {}

    async def tail_messages(request: Request) -> Response:
        query = read_query(request)
        values = query.values()
        check_tail(site.source.backend, query.pattern, query.group, values, payloads=query.payloads)
        site.streams.check(caller_of(request).name)
        for idle in [each for each, broadcast in shared.items() if broadcast.is_idle]:
            del shared[idle]
        if cursor := request.headers.get("last-event-id"):
            broadcast = Broadcast(lambda: _resumed_events(site.source, query, cursor))
        else:
            broadcast = shared.setdefault(query, Broadcast(lambda: _events(site.source, query)))
        return EventStream(broadcast, site.security, site.closing, site.streams)

    return [
        Endpoint(
            "GET",
            "/v1/tail",
            tail_messages,
            Role.VIEWER,
            "Messages as they are accepted",
            details=_DETAILS,
            parameters=[
                Parameter("pattern", "A key or pattern; `#` by default."),
                Parameter("group", "A group: show the unsettled messages of this route instead."),
                Parameter(
                    "where",
                    "`POINTER=VALUE`: the payload has this value there. May be repeated.",
                    type=list[str],
                ),
                Parameter("sample", f"Most messages in a second, up to {SAMPLE:.0f}.", type=float),
                Parameter("Last-Event-ID", "The id of the last event; go on after it.", "header"),
            ],
            answers={200: Content("the events", {MEDIA_TYPE: str})},
            problems={
                400: "a parameter is malformed",
                409: "the pattern, the group or the filter does not fit, or the backend cannot show messages",
                429: "too many streams are open, of the token or of all",
            },
        )
    ]


def read_query(request: Request) -> TailQuery:
    """Return what a request asks for; raise Refusal if a parameter is malformed, or the role is missing."""
    params = request.query_params
    pattern = params.get("pattern") or "#"
    caller = require(request, Role.VIEWER, pattern)
    where = tuple(_read_filter(text) for text in params.getlist("where") if text)
    if len(where) > MOST_FILTERS:
        raise invalid(f"there are more than {MOST_FILTERS} filters")
    sample = read_real(params.get("sample"), "sample", SAMPLE)
    if not 0.1 <= sample <= SAMPLE:
        raise invalid(f"`sample` is not between 0.1 and {SAMPLE:.0f}")
    payloads = caller.allows(Role.READER, pattern)
    return TailQuery(pattern, params.get("group") or None, where, sample, payloads)


def _read_filter(text: str) -> tuple[str, bytes]:
    if len(text) > MAX_FILTER:
        raise invalid("a filter is too long")
    try:
        pointer, value = parse_filter(text)
    except ValueError as error:
        raise invalid(str(error)) from None
    return pointer, encode(value)


async def _resumed_events(source: HttpSource, query: TailQuery, cursor: str) -> AsyncGenerator[bytes, None]:
    """Yield the events after a cursor. If it is old or malformed, say so and go on with new messages."""
    with suppress(OperationError):
        async with aclosing(_tailed(source, query, cursor)) as messages:
            async for each in messages:
                if each.published_at < time.time() - RESUMED and cursor:
                    break
                cursor = ""
                yield format_event("message", each, each.cursor)
    yield format_event("skipped", {})
    async with aclosing(_events(source, query)) as events:
        async for event in events:
            yield event


async def _events(source: HttpSource, query: TailQuery) -> AsyncGenerator[bytes, None]:
    cursor = await source.backend.peek_end(query.pattern, query.group)
    async with aclosing(_tailed(source, query, cursor)) as messages:
        async for each in messages:
            yield format_event("message", each, each.cursor)


async def _tailed(source: HttpSource, query: TailQuery, cursor: str) -> AsyncGenerator[Tailed, None]:
    """Yield messages, each masked by the table that is in force when it is shown."""
    while True:
        table = source.table
        messages = tail(
            source.backend,
            table,
            query.pattern,
            group=query.group,
            after=cursor,
            sample=query.sample,
            where=query.values(),
            payloads=query.payloads,
        )
        async with aclosing(messages) as tailed:
            async for each in tailed:
                if source.table is not table:
                    break
                cursor = each.cursor
                yield each
