"""Server-sent events: the answer that stays open and sends what a subscriber gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abe_router.http.broadcast import Broadcast, format_event
from abe_router.http.guard import request_headers
from abe_router.http.problem import RETRY_AFTER, Refusal
from abe_router.http.security import Security

#: Interval at which the rights of the client are checked, and at which a quiet stream sends a comment, in
#: seconds. The comment makes proxies keep the connection.
COMMENT_EVERY = 15.0
#: Most streams of one server.
MOST_STREAMS = 100
MEDIA_TYPE = "text/event-stream"
#: Sent first: how long a browser waits before it connects again, in milliseconds.
_RETRY, _COMMENT = b"retry: 2000\n\n", b": \n\n"


class StreamLimit:
    """The open streams of one server, by the names of their tokens.

    A token may have as many streams as are free. So one token takes at most half of all, and the next one
    finds places.
    """

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many streams are open."""
        return self._open.total()

    def check(self, token: str) -> None:
        """Raise Refusal if a token may not open one more stream."""
        own, free = self._open[token], self._most - self.open
        if own >= free:
            raise Refusal(
                429,
                "too-many-requests",
                "Too many streams are open",
                f"token `{token}` has {own:,} streams, and {free:,} of {self._most:,} are free",
                headers={"Retry-After": str(RETRY_AFTER)},
            )

    @contextmanager
    def entered(self, token: str) -> Iterator[None]:
        """Count a stream of a token while it is open."""
        self._open[token] += 1
        try:
            yield
        finally:
            self._open[token] -= 1
            self._open += Counter()  # forgets tokens without streams


class EventStream(Response):
    """Sends the events of a broadcast until the client leaves, they end, or `closing` is set.

    It also ends when the token or the session of the client is no longer valid, or has other rights, which
    `security` says. The last event is `closing` if the server ends the stream.
    """

    def __init__(
        self, broadcast: Broadcast, security: Security, closing: asyncio.Event, limit: StreamLimit
    ) -> None:
        super().__init__(None, headers={"X-Accel-Buffering": "no"}, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._broadcast, self._security = broadcast, security
        self._closing, self._limit = closing, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": _RETRY, "more_body": scope["method"] != "HEAD"})
        if scope["method"] == "HEAD":
            return
        leaving = asyncio.create_task(_left(receive))
        closing = asyncio.create_task(self._closing.wait())
        taking: asyncio.Task[bytes] | None = None
        now = asyncio.get_running_loop().time
        checked_at = now()
        try:
            with (
                self._limit.entered(scope["state"]["caller"].name),
                self._broadcast.subscribe() as subscriber,
            ):
                while True:
                    taking = taking or asyncio.create_task(subscriber.take())
                    await asyncio.wait(
                        (taking, leaving, closing),
                        timeout=COMMENT_EVERY,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    if leaving.done():
                        return
                    if now() >= checked_at + COMMENT_EVERY:
                        checked_at, is_allowed = now(), await self._allows(scope)
                    else:
                        is_allowed = True
                    if closing.done() or not is_allowed:
                        await _send(send, format_event("closing", {}), more=False)
                        return
                    if not taking.done():
                        await _send(send, _COMMENT)
                        continue
                    events, taking = taking.result(), None
                    await _send(send, events, more=bool(events))
                    if not events:
                        return
        finally:
            for task in (leaving, closing, taking):
                if task is not None:
                    task.cancel()

    async def _allows(self, scope: Scope) -> bool:
        """Return whether the client still has the rights that it had at the start."""
        query, headers = scope["query_string"].decode("latin-1"), request_headers(scope)
        await self._security.recall(headers)
        try:
            caller = self._security.find_caller(scope["method"], headers, query)
        except Refusal:
            return False
        return bool(caller == scope["state"]["caller"])


async def _send(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
