"""The bodies of messages that are published: their size, and the memory that all of them take.

All bodies of a server share one budget of bytes. A request whose body does not fit in is refused with 429, so
many large bodies at once cannot exhaust the memory. The guard of the application limits the time, and reads
the rest of a refused body.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request

from abe_router.http.endpoint import is_longer
from abe_router.http.problem import Refusal

#: Bytes of all bodies that are read or published at the same time.
CAPACITY = 64 * 1024 * 1024
#: Ends the connection, so the rest of a refused body is not read.
_CLOSE = {"Connection": "close"}


class BodyBudget:
    """The bytes that bodies may take; `free` are not taken."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.free = capacity

    @contextmanager
    def share(self) -> Iterator[BodyShare]:
        """Yield the share of one request. It is given back at the end."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            share.resize(0)


class BodyShare:
    """The part of a budget that one request takes."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget, self._size = budget, 0

    def resize(self, size: int) -> None:
        """Take `size` bytes in all; raise Refusal if the budget does not have them."""
        more = size - self._size
        if more > self._budget.free:
            raise Refusal(
                429,
                "too-many-requests",
                "The server is publishing too much at once",
                "it has no memory for this body now: send it again later",
                headers={"Retry-After": "1", **_CLOSE},
            )
        self._budget.free -= more
        self._size = size


async def read_body(request: Request, share: BodyShare, limit: int) -> bytes:
    """Return the body of a request; raise Refusal if it is longer than `limit` bytes."""
    if is_longer(request.headers.get("content-length", ""), limit):
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in body_parts(request):
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        share.resize(size)
        parts.append(part)
    return b"".join(parts)


async def body_parts(request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive; raise Refusal if it is compressed or the client leaves."""
    if encoding := request.headers.get("content-encoding", ""):
        raise unsupported(f"the body has the content encoding `{encoding[:40]}`: send it without")
    more = True
    while more:
        received = await request.receive()
        if received["type"] == "http.disconnect":
            raise Refusal(400, "invalid-request", "The request is invalid", "the client has left")
        more = received.get("more_body", False)
        if part := received.get("body", b""):
            yield part


def unsupported(detail: str, **members: Any) -> Refusal:
    """Return the refusal of a body whose type or encoding is not supported."""
    return Refusal(415, "unsupported-media-type", "The type of the body is not supported", detail, **members)


def _too_large(limit: int) -> Refusal:
    detail = f"the limit is {limit:,} bytes"
    return Refusal(413, "too-large", "The body is too large", detail, headers=_CLOSE)
