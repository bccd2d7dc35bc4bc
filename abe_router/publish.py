"""Publishing through the table: match, check, hand to the backend.

`publish` is a function of the table, so that nobody holds a stale one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from time import time
from typing import Any

from abe_router.backend import Backend
from abe_router.errors import NoRoute, PayloadInvalid
from abe_router.message import Duplicate, Message, decode, encode, new_id
from abe_router.pattern import check_key
from abe_router.route import RouteTable


def prepare(
    table: RouteTable,
    key: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    allow_unrouted: bool = False,
    encoded_here: bool = False,
) -> Message:
    """Return the message that publishing `body`, the payload as JSON, would append.

    Raise KeyInvalid, NoRoute, PayloadMalformed, PayloadInvalid, with every violation of every schema that
    the table puts on `key`, or IdInvalid. A body from `encode` is `encoded_here`, and is not measured anew.
    """
    check_key(key)
    schemas = table.schemas(key)
    if not (schemas or allow_unrouted or table.unrouted == "allow" or table.knows(key)):
        close = get_close_matches(key, table.concrete_keys, 1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise NoRoute(f"no route and no schema knows `{key}`{hint}")
    payload = decode(body, encoded_here=encoded_here)
    for schema in schemas:
        if not schema.is_valid(payload):
            violations = [v for s in schemas if not s.is_valid(payload) for v in s.violations(payload)]
            raise PayloadInvalid(key, violations)
    if table.deduplications and (deduplication := table.deduplication(key)):
        id = deduplication.id(key, payload, headers or {}, id)
    return Message(id or new_id(), key, body, headers or {}, time())


def window(table: RouteTable, key: str, id: str | None) -> float:
    """Return for how many seconds the id of a message is remembered, when `id` is what was said of it."""
    deduplication = table.deduplication(key)
    return deduplication.window_of(id) if deduplication else 0.0


async def append(backend: Backend, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
    """Append messages, each with its window; return those that were not kept, for their ids are remembered.

    Raises BackendUnavailable.
    """
    if any(seconds for _, seconds in windowed):
        return await backend.append_once(windowed)
    await backend.append([message for message, _ in windowed])
    return ()


async def publish(
    table: RouteTable,
    backend: Backend,
    key: str,
    payload: Any,
    *,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    allow_unrouted: bool = False,
) -> Message:
    """Check a payload against the table and append it; return the message, a Duplicate if it was not kept.

    Raises what `prepare` raises, PayloadUnencodable when the payload is not JSON, and
    BackendUnavailable. What is checked is the JSON that is sent, not the object it was made from.
    """
    message = prepare(
        table,
        key,
        encode(payload),
        headers=headers,
        id=id,
        allow_unrouted=allow_unrouted,
        encoded_here=True,
    )
    if table.deduplications and (seconds := window(table, key, id)):
        return Duplicate.of(message) if await backend.append_once([(message, seconds)]) else message
    await backend.append([message])
    return message
