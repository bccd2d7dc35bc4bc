"""The dead letters of a route: list, show, replay, purge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from abe_router.backend import Backend, DeadLetter, SubscriptionName
from abe_router.errors import PayloadMalformed
from abe_router.messages.message import decode
from abe_router.messages.pattern import matches
from abe_router.operations.errors import UnknownDeadLetter

#: Dead letters that one call to the backend reads, moves or deletes.
PAGE = 500


class DeadLetterSummary(msgspec.Struct, frozen=True):
    """A dead letter in a list: without payload, headers and traceback."""

    route: str
    id: str
    message_id: str
    key: str
    kind: str
    error: str
    message: str
    attempts: int
    last_failed_at: float


class DeadLetterDetail(DeadLetterSummary, frozen=True):
    """A complete dead letter. A payload that is not JSON is text with escapes."""

    deliveries: int
    first_failed_at: float
    pointer: str
    keyword: str
    traceback: str
    revision: str
    published_at: float
    headers: Mapping[str, str]
    payload: Any


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """Which dead letters to list: those that satisfy all conditions that are given.

    `key` is a key or a pattern, `message_id` the id of the message, and `since` the earliest time of the last
    failure, in seconds since the epoch.
    """

    kind: str | None = None
    key: str | None = None
    message_id: str | None = None
    since: float = 0.0

    def accepts(self, dead_letter: DeadLetter) -> bool:
        """Return whether a dead letter satisfies the conditions."""
        return (
            dead_letter.last_failed_at >= self.since
            and self.kind in (None, dead_letter.reason.kind)
            and self.message_id in (None, dead_letter.message.id)
            and (self.key is None or matches(self.key, dead_letter.message.key))
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
    backend: Backend, route: SubscriptionName, *, after: str = ""
) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of a route after the one with the id `after`, oldest first.

    They are read page by page, so a caller that stops early reads only what it needs.
    """
    while page := await backend.dead_letters(*route, limit=PAGE, after=after):
        for dead_letter in page:
            yield dead_letter
        after = page[-1].id


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
    if route is None:
        routes = [(status.pattern, status.group) for status in await backend.status() if status.dead]
    else:
        routes = [route]
    found: list[DeadLetterSummary] = []
    for one in routes:
        async for dead_letter in read_dead_letters(backend, one, after=after):
            if where is None or where.accepts(dead_letter):
                if len(found) == limit:
                    return DeadLetterPage(tuple(found), more=True)
                found.append(summary(dead_letter))
    return DeadLetterPage(tuple(found), more=False)


async def find_dead_letter(backend: Backend, route: SubscriptionName, id: str) -> DeadLetter:
    """Return one dead letter of a route; raise UnknownDeadLetter."""
    async for dead_letter in read_dead_letters(backend, route):
        if dead_letter.id == id:
            return dead_letter
    raise UnknownDeadLetter(
        f"`{'/'.join(route)}` has no dead letter `{id}`", hint="`abe-router dead list` shows the ids"
    )


async def select(backend: Backend, route: SubscriptionName, ids: Sequence[str]) -> Sequence[str]:
    """Return the given ids without duplicates, or, if none are given, those of all current dead letters."""
    return list(dict.fromkeys(ids)) or [found.id async for found in read_dead_letters(backend, route)]


async def replay(backend: Backend, route: SubscriptionName, ids: Sequence[str]) -> Moved:
    """Move dead letters back to their own route, with new counts."""
    return await _in_pages(ids, lambda page: backend.replay(*route, page))


async def purge(backend: Backend, route: SubscriptionName, ids: Sequence[str]) -> Moved:
    """Delete dead letters permanently."""
    return await _in_pages(ids, lambda page: backend.purge(*route, page))


def summary(dead_letter: DeadLetter) -> DeadLetterSummary:
    """Return the summary of a dead letter."""
    return DeadLetterSummary(**_summary(dead_letter))


def detail(dead_letter: DeadLetter) -> DeadLetterDetail:
    """Return the complete dead letter."""
    message, reason = dead_letter.message, dead_letter.reason
    body = message.body
    return DeadLetterDetail(
        **_summary(dead_letter),
        deliveries=dead_letter.deliveries,
        first_failed_at=dead_letter.first_failed_at,
        pointer=reason.pointer,
        keyword=reason.keyword,
        traceback=reason.traceback,
        revision=dead_letter.revision,
        published_at=message.published_at,
        headers=message.headers,
        payload=msgspec.Raw(body) if is_json(body) else body.decode(errors="backslashreplace"),
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
        "message_id": dead_letter.message.id,
        "key": dead_letter.message.key,
        "kind": dead_letter.reason.kind,
        "error": dead_letter.reason.error,
        "message": dead_letter.reason.message,
        "attempts": dead_letter.attempts,
        "last_failed_at": dead_letter.last_failed_at,
    }


async def _in_pages(ids: Sequence[str], act: Callable[[Sequence[str]], Awaitable[int]]) -> Moved:
    done = 0
    for start in range(0, len(ids), PAGE):
        done += await act(ids[start : start + PAGE])
    return Moved(len(ids), done)
