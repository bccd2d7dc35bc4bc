"""Pause, limit and resume routes: overrides that end, and that every running worker obeys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from abe_router.backend import Backend, SubscriptionStatus
from abe_router.errors import BackendError
from abe_router.messages.pattern import covers, is_group, is_pattern
from abe_router.operations.access import missing_file, table_backend
from abe_router.operations.audit import Author, record_act
from abe_router.operations.errors import OperationRefused, UnknownRoute
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import WorkerReport, read_workers
from abe_router.runtime.override import (
    OVERRIDES,
    Action,
    Override,
    decode_overrides,
    entry_name,
    read_overrides,
)
from abe_router.text import did_you_mean, format_duration, recordable

#: How long an override lasts if nothing else is said, and at most, in seconds.
DEFAULT_SECONDS, LONGEST_SECONDS = 3600.0, 7 * 86_400.0
#: Longest reason that is kept, in characters.
LONGEST_WHY = 200
#: How long to wait for the workers, and how often to look, in seconds.
PATIENCE, LOOK_EVERY = 5.0, 0.1
#: How long a command waits for the overrides if it can go on without them, in seconds.
LOOK_TIME = 2.0


class RouteOverridden(msgspec.Struct, frozen=True):
    """One route that was paused, limited or resumed.

    `text` says what holds now. `waiting` is the number of its messages that are ready or delayed, and
    `in_flight` of those that are being handled. With `paused_in_file`, the routes file pauses it.
    """

    route: str
    text: str
    waiting: int
    in_flight: int
    paused_in_file: bool


class OverrideResult(msgspec.Struct, frozen=True):
    """What came of pausing, limiting or resuming routes.

    `obeyed` are the workers that obey, as `host:pid`, and `silent` those that have not answered in time.
    `revisions` maps each entry to its revision, 0 if it was deleted.
    """

    routes: tuple[RouteOverridden, ...]
    obeyed: tuple[str, ...]
    silent: tuple[str, ...]
    revisions: Mapping[str, int]


async def pause(
    table: RouteTable,
    backend: Backend,
    route: str,
    *,
    author: Author,
    why: str,
    seconds: float = DEFAULT_SECONDS,
    patience: float = PATIENCE,
) -> OverrideResult:
    """Pause routes for a time, and return when every running worker obeys, or after `patience` seconds.

    `route` is KEY/GROUP, or a pattern of these, such as `orders.*/billing` or `#/*`: it names the routes that
    exist now. It names a route with a pattern only if it matches all keys of that. A paused route fetches
    nothing, and finishes what it has fetched. Raise OperationRefused if the time, the reason or the backend
    does not permit it, and UnknownRoute if no route matches.
    """
    return await _override(table, backend, "pause", route, None, author, why, seconds, patience)


async def limit(
    table: RouteTable,
    backend: Backend,
    route: str,
    rate: float,
    *,
    author: Author,
    why: str,
    seconds: float = DEFAULT_SECONDS,
    patience: float = PATIENCE,
) -> OverrideResult:
    """Limit routes to `rate` messages a second each, all workers together; otherwise as `pause` does.

    The rate takes precedence over that of the file, whether it is lower or higher.
    """
    return await _override(table, backend, "limit", route, rate, author, why, seconds, patience)


async def resume(
    table: RouteTable,
    backend: Backend,
    route: str,
    *,
    author: Author,
    why: str = "",
    patience: float = PATIENCE,
) -> OverrideResult:
    """End every override of routes; otherwise as `pause` does.

    A route that the file pauses stays paused. Without any override, nothing is changed.
    """
    _require_store(backend)
    overrides = decode_overrides(await backend.entries(OVERRIDES))
    statuses = await backend.status()
    routes = _expand(route, table, statuses, [override.route for override in overrides])
    ended = [override for override in overrides if override.route in routes]
    await asyncio.gather(*(backend.delete(OVERRIDES, override.name) for override in ended))
    texts = {
        name: ", ".join(f"no longer {each.effect}" for each in ended if each.route == name) or "no override"
        for name in routes
    }
    names = {entry_name(action, name): 0 for name in routes for action in _ACTIONS}
    act = ("resume", route)
    return await _finish(table, backend, act, texts, statuses, names, author, why, patience)


async def overrides_in_force(table: RouteTable) -> Sequence[Override] | None:
    """Return the overrides in the backend of a table, or None if it cannot be reached soon.

    There are none in a backend that other processes cannot use, or that does not exist yet.
    """
    backend = table_backend(table)
    if not backend.features.processes or missing_file(backend):
        return ()
    try:
        return await known_overrides(backend)  # which opens it
    finally:
        await backend.close()


async def known_overrides(backend: Backend) -> Sequence[Override] | None:
    """Return the overrides in an open backend, or None if it does not answer soon."""
    try:
        async with asyncio.timeout(LOOK_TIME):
            return await read_overrides(backend)
    except (BackendError, TimeoutError):
        return None


_ACTIONS: tuple[Action, ...] = ("pause", "limit")


async def _override(
    table: RouteTable,
    backend: Backend,
    action: Action,
    route: str,
    rate: float | None,
    author: Author,
    why: str,
    seconds: float,
    patience: float,
) -> OverrideResult:
    _require_store(backend)
    if not why.strip():
        raise OperationRefused("an override needs a reason", hint="say why, for everyone who finds it")
    if not 0 < seconds <= LONGEST_SECONDS:
        raise OperationRefused(
            f"an override lasts more than 0s and at most {format_duration(LONGEST_SECONDS)}",
            hint="what is to hold for longer belongs in the routes file",
        )
    statuses = await backend.status()
    reason, now = recordable(why.strip(), LONGEST_WHY), time.time()
    overrides = [
        Override(action, name, now, seconds, author.name, reason, rate)
        for name in _expand(route, table, statuses, ())
    ]
    # At the same time, because the backend stores such calls together.
    stored = await asyncio.gather(
        *(backend.put(OVERRIDES, one.name, msgspec.json.encode(one), ttl=seconds) for one in overrides)
    )
    revisions = dict(zip((one.name for one in overrides), stored, strict=True))
    texts = {one.route: one.describe() for one in overrides}
    # An override that ends sooner than a worker answers is no longer in its report.
    patience, act = min(patience, seconds), (action, route)
    return await _finish(table, backend, act, texts, statuses, revisions, author, why, patience)


async def _finish(
    table: RouteTable,
    backend: Backend,
    act: tuple[str, str],
    texts: Mapping[str, str],
    statuses: Sequence[SubscriptionStatus],
    revisions: Mapping[str, int],
    author: Author,
    why: str,
    patience: float,
) -> OverrideResult:
    """Wait for the workers, and record the act: its command, and the route or the pattern."""
    obeyed, silent = await _wait_for_workers(backend, revisions, patience)
    counts = {status.name: status for status in statuses}
    target = act[1]
    result = "; ".join(text if name == target else f"{name} {text}" for name, text in texts.items())
    if silent:
        result = f"not obeyed yet by {', '.join(silent)}; {result}"
    await record_act(backend, author, *act, why=why, result=result)
    return OverrideResult(
        tuple(_overridden(table, name, text, counts.get(name)) for name, text in texts.items()),
        obeyed,
        silent,
        revisions,
    )


async def _wait_for_workers(
    backend: Backend, revisions: Mapping[str, int], patience: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the workers that obey and those that do not, once all do or the time is up.

    A worker obeys an entry if it reports this revision or a later one, and a deleted entry if it reports
    none.
    """

    def obeys(worker: WorkerReport | None) -> bool:
        seen = worker.overrides if worker else {}
        return worker is not None and all(
            seen.get(name, 0) >= revision if revision else name not in seen
            for name, revision in revisions.items()
        )

    until = asyncio.get_running_loop().time() + patience
    while True:
        workers = await read_workers(backend)
        silent = _named(workers, lambda worker: not obeys(worker))
        if not silent or asyncio.get_running_loop().time() >= until:
            return _named(workers, obeys), silent
        await asyncio.sleep(LOOK_EVERY)


def _named(
    workers: Mapping[str, WorkerReport | None], wanted: Callable[[WorkerReport | None], bool]
) -> tuple[str, ...]:
    found = ((name, worker) for name, worker in workers.items() if wanted(worker))
    return tuple(f"{worker.host}:{worker.pid}" if worker else name for name, worker in found)


def _expand(
    route: str, table: RouteTable, statuses: Iterable[SubscriptionStatus], overridden: Iterable[str]
) -> Sequence[str]:
    """Return the routes that a name or a pattern means: those of the file, the backend and the overrides.

    A pattern means a route with a pattern only if it matches every key of it. So the right to use the pattern
    is the right to all keys of the routes.
    """
    known = dict.fromkeys([*table.by_name, *(status.name for status in statuses), *overridden])
    if route in known:
        return (route,)
    key, _, group = route.partition("/")
    if not is_pattern(key) or not (group == "*" or is_group(group)):
        raise UnknownRoute(f"`{route}` is not KEY/GROUP, such as orders.created/billing or orders.*/*")
    found = [name for name in known if _is_meant(name, key, group)]
    if not found:
        hint = did_you_mean(route, known) or "`abe-router status` lists the routes"
        raise UnknownRoute(f"no route is named `{route}` or matches it", hint=hint)
    return found


def _is_meant(name: str, key: str, group: str) -> bool:
    route_key, _, route_group = name.partition("/")
    return group in ("*", route_group) and covers(key, route_key)


def _overridden(
    table: RouteTable, name: str, text: str, status: SubscriptionStatus | None
) -> RouteOverridden:
    route = table.by_name.get(name)
    return RouteOverridden(
        name,
        text,
        waiting=status.ready + status.delayed if status else 0,
        in_flight=status.in_flight if status else 0,
        paused_in_file=route is not None and route.paused,
    )


def _require_store(backend: Backend) -> None:
    if not backend.features.key_value:
        raise OperationRefused(
            f"backend `{backend.url}` cannot keep overrides",
            hint="write `paused: true` or `rate` in the routes file",
        )
