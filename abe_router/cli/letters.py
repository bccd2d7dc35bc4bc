"""Dead letters as the backend pages them out, and as values to print."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

from abe_router.backend import Backend, DeadLetter
from abe_router.cli.failure import Failure
from abe_router.errors import PayloadMalformed
from abe_router.messages.message import decode
from abe_router.text import format_time, printable

#: Dead letters read or moved in one call to the backend.
PAGE = 500


async def read_letters(backend: Backend, route: tuple[str, str]) -> AsyncIterator[DeadLetter]:
    """Yield every dead letter of a route, oldest first, a page at a time."""
    after = ""
    while page := await backend.dead_letters(*route, limit=PAGE, after=after):
        for letter in page:
            yield letter
        after = page[-1].id


async def require_route(backend: Backend, route: tuple[str, str], known: Collection[str] = ()) -> None:
    """Raise Failure unless it is `known` or the backend has seen it: a slip is not taken for 'none'."""
    names = [*known, *(f"{status.pattern}/{status.group}" for status in await backend.status())]
    name = "/".join(route)
    if name not in names:
        close = get_close_matches(name, names, 1)
        hint = f"did you mean `{close[0]}`?" if close else "`abe-router status` lists the routes"
        raise Failure(f"the backend has never seen route `{name}`", hint=hint)


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return what a list shows of a dead letter: all but its payload, headers and traceback."""
    reason = letter.reason
    return {
        "route": letter.route,
        "id": letter.id,
        "message_id": letter.message.id,
        "key": letter.message.key,
        "kind": reason.kind,
        "error": reason.error,
        "message": reason.message,
        "attempts": letter.attempts,
        "last_failed_at": letter.last_failed_at,
    }


def values(letter: DeadLetter) -> dict[str, Any]:
    """Return the whole of a dead letter; a payload that is not JSON comes as text."""
    message, body = letter.message, letter.message.body
    return {
        **summary(letter),
        "deliveries": letter.deliveries,
        "first_failed_at": letter.first_failed_at,
        "pointer": letter.reason.pointer,
        "keyword": letter.reason.keyword,
        "traceback": letter.reason.traceback,
        "revision": letter.revision,
        "published_at": message.published_at,
        "headers": message.headers,
        "payload": msgspec.Raw(body) if _is_json(body) else body.decode(errors="backslashreplace"),
    }


def lines(letter: DeadLetter) -> Iterator[str]:
    """Yield the whole of a dead letter as text for a person."""
    message, reason = letter.message, letter.reason
    place = f" at {reason.pointer or '(root)'} ({reason.keyword})" if reason.keyword else ""
    facts = {
        "dead letter": letter.id,
        "route": letter.route,
        "message": message.id,
        "key": message.key,
        "published": format_time(message.published_at),
        "reason": f"{reason.kind}{place}: {reason.error}: {reason.message}",
        "attempts": str(letter.attempts),
        "deliveries": str(letter.deliveries),
        "first failed": format_time(letter.first_failed_at),
        "last failed": format_time(letter.last_failed_at),
        "revision": letter.revision,
        **{f"header {name}": value for name, value in message.headers.items()},
    }
    for name, value in facts.items():
        if value:
            yield printable(f"{name:<14}{value}")
    body = msgspec.json.format(message.body, indent=2) if _is_json(message.body) else message.body
    for title, text in (("payload", body.decode(errors="backslashreplace")), ("traceback", reason.traceback)):
        if text:
            yield f"\n{title}"
            yield from (f"  {printable(line)}" for line in text.splitlines())


def _is_json(body: bytes) -> bool:
    try:
        decode(body)
    except PayloadMalformed:
        return False
    return True
