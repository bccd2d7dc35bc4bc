"""The dead letters of a route: list, show, select, purge. Replay is a module of its own.

A list and a selection read no payload. `detail` alone shows one, with its sensitive values masked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from math import inf
from typing import Any

import msgspec

from abe_router.backend import Backend, DeadLetter, SubscriptionName
from abe_router.errors import PayloadMalformed
from abe_router.messages.message import decode
from abe_router.messages.pattern import matches
from abe_router.operations.audit import Author, record_act
from abe_router.operations.errors import UnknownDeadLetter
from abe_router.operations.fingerprint import fingerprint
from abe_router.operations.masked import masked_headers, masked_payload
from abe_router.operations.subscriptions import deleting
from abe_router.routing.table import RouteTable

#: Dead letters that one call to the backend reads without their bodies, moves or deletes.
PAGE = 1_000
#: Dead letters that one call reads with their bodies, of which each may have a megabyte.
PAGE_OF_BODIES = 50
#: A page is yielded in so many pieces; between them the event loop reads the next page.
PIECES = 100


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """A dead letter in a list: without payload, headers and traceback.

    `group` is the fingerprint of its reason. See `DeadLetter` for `replays` and `former`.
    """

    route: str
    id: str
    group: str
    message_id: str
    key: str
    kind: str
    error: str
    message: str
    attempts: int
    last_failed_at: float
    revision: str
    replays: int
    former: str


class DeadLetterDetail(DeadLetterSummary, frozen=True):
    """A complete dead letter. A payload that is not JSON is text with escapes.

    `type` and `frame` are the qualified type of the exception and where in the user's code it was raised.
    """

    deliveries: int
    first_failed_at: float
    pointer: str
    keyword: str
    type: str
    frame: str
    traceback: str
    published_at: float
    headers: Mapping[str, str]
    payload: Any


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """Which dead letters are meant: those that satisfy all conditions that are given.

    `key` is a key or a pattern, `message_id` the id of the message, and `group` a fingerprint. `revision` is
    that of the table, or its beginning. The last failure lies between `since` and `until`, in seconds since
    the epoch.
    """

    kind: str | None = None
    key: str | None = None
    message_id: str | None = None
    since: float = 0.0
    until: float = inf
    group: str | None = None
    revision: str | None = None

    def accepts(self, dead_letter: DeadLetter) -> bool:
        """Return whether a dead letter satisfies the conditions."""
        return (
            self.since <= dead_letter.last_failed_at <= self.until
            and self.kind in (None, dead_letter.reason.kind)
            and self.message_id in (None, dead_letter.message.id)
            and (self.key is None or matches(self.key, dead_letter.message.key))
            and (self.revision is None or dead_letter.revision.startswith(self.revision))
            and (self.group is None or fingerprint(dead_letter.reason) == self.group)
        )


class DeadLetterPage(msgspec.Struct, frozen=True):
    """A part of a list of dead letters; `more` says whether there are others behind it."""

    dead_letters: tuple[DeadLetterSummary, ...]
    more: bool


class Moved(msgspec.Struct, frozen=True):
    """The number of dead letters that an operation should replay or purge, and the number it found."""

    requested: int
    done: int

    @property
    def missing(self) -> int:
        """The number that was not found."""
        return self.requested - self.done


async def read_dead_letters(
    backend: Backend, route: SubscriptionName, *, after: str = "", bodies: bool = False
) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of a route after the one with the id `after`, oldest first.

    They are read page by page, so a caller that stops early reads only what it needs. Without `bodies`,
    their messages may have no body and no headers.
    """
    limit = PAGE_OF_BODIES if bodies else PAGE
    while page := await backend.dead_letters(*route, limit=limit, after=after, bodies=bodies):
        for dead_letter in page:
            yield dead_letter
        after = page[-1].id


async def read_pages(
    backend: Backend, route: SubscriptionName, *, after: str = "", bodies: bool = False
) -> AsyncIterator[Sequence[DeadLetter]]:
    """Yield the dead letters of a route after the one with the id `after` in short pages, oldest first.

    Without `bodies`, their messages may have no body and no headers.
    The backend reads the next ones while the caller works on a page.
    """
    limit = PAGE_OF_BODIES if bodies else PAGE

    def read(after: str) -> asyncio.Future[Sequence[DeadLetter]]:
        return asyncio.ensure_future(backend.dead_letters(*route, limit=limit, after=after, bodies=bodies))

    reading, piece = read(after), max(1, limit // PIECES)
    try:
        while page := await reading:
            reading = read(page[-1].id)
            for start in range(0, len(page), piece):
                await asyncio.sleep(0)  # a call takes several turns: to send, and for each part of the answer
                yield page[start : start + piece]
    finally:
        reading.cancel()


async def list_dead_letters(
    backend: Backend,
    route: SubscriptionName | None = None,
    *,
    where: DeadLetterFilter | None = None,
    limit: int | None = None,
    after: str = "",
) -> DeadLetterPage:
    """Return the dead letters of a route, or of every route in the backend, oldest first for each route.

    Of a route, those after the one with the id `after`. At most `limit`, and no more are read than that
    takes.
    """
    found: list[DeadLetterSummary] = []
    for one in await routes_with_dead_letters(backend, route):
        async for dead_letter in read_dead_letters(backend, one, after=after):
            if where is None or where.accepts(dead_letter):
                if len(found) == limit:
                    return DeadLetterPage(tuple(found), more=True)
                found.append(summary(dead_letter))
    return DeadLetterPage(tuple(found), more=False)


async def routes_with_dead_letters(
    backend: Backend, route: SubscriptionName | None
) -> Sequence[SubscriptionName]:
    """Return the given route, or every subscription that has dead letters."""
    if route is not None:
        return [route]
    return [(status.pattern, status.group) for status in await backend.status() if status.dead]


async def find_dead_letter(backend: Backend, route: SubscriptionName, id: str) -> DeadLetter:
    """Return one dead letter of a route, with its body; raise UnknownDeadLetter."""
    before = ""
    async for dead_letter in read_dead_letters(backend, route):
        if dead_letter.id == id:
            whole = await backend.dead_letters(*route, limit=1, after=before)
            if whole and whole[0].id == id:
                return whole[0]
            break
        before = dead_letter.id
    raise UnknownDeadLetter(
        f"`{'/'.join(route)}` has no dead letter `{id}`", hint="`abe-router dead list` shows the ids"
    )


async def purge(
    backend: Backend,
    route: SubscriptionName,
    ids: Sequence[str],
    *,
    author: Author,
    why: str = "",
    force: bool = False,
) -> Moved:
    """Delete dead letters permanently, and record the act; raise what `deleting` raises."""
    done = 0
    async with deleting(backend, route, force=force, why=why):
        for start in range(0, len(ids), PAGE):
            done += await backend.purge(*route, ids[start : start + PAGE])
    result = f"{'forced: ' if force else ''}purged {done:,} of {len(ids):,}"
    await record_act(backend, author, "dead purge", "/".join(route), why=why, result=result)
    return Moved(len(ids), done)


def summary(dead_letter: DeadLetter) -> DeadLetterSummary:
    """Return the summary of a dead letter."""
    return DeadLetterSummary(**_summary(dead_letter))


def detail(dead_letter: DeadLetter, table: RouteTable) -> DeadLetterDetail:
    """Return the complete dead letter, with its payload masked, else exact."""
    message, reason = dead_letter.message, dead_letter.reason
    return DeadLetterDetail(
        **_summary(dead_letter),
        deliveries=dead_letter.deliveries,
        first_failed_at=dead_letter.first_failed_at,
        pointer=reason.pointer,
        keyword=reason.keyword,
        type=reason.type,
        frame=reason.frame,
        traceback=reason.traceback,
        published_at=message.published_at,
        headers=masked_headers(table, message),
        payload=masked_payload(table, message, exact=True),
    )


def is_json(body: bytes) -> bool:
    """Return whether the body of a message is JSON. The body of a dead letter may not be."""
    try:
        decode(body)
    except PayloadMalformed:
        return False
    return True


def _summary(dead_letter: DeadLetter) -> dict[str, Any]:
    return {
        "route": dead_letter.route,
        "id": dead_letter.id,
        "group": fingerprint(dead_letter.reason),
        "message_id": dead_letter.message.id,
        "key": dead_letter.message.key,
        "kind": dead_letter.reason.kind,
        "error": dead_letter.reason.error,
        "message": dead_letter.reason.message,
        "attempts": dead_letter.attempts,
        "last_failed_at": dead_letter.last_failed_at,
        "revision": dead_letter.revision,
        "replays": dead_letter.replays,
        "former": dead_letter.former,
    }
