"""The state of the subscriptions of a backend, compared with the routes of a table; dropping one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from abe_router.backend import Backend, SubscriptionName, SubscriptionStatus
from abe_router.errors import BackendError
from abe_router.operations.audit import Author, record_act
from abe_router.operations.errors import OperationRefused, RouteInFile, RouteServed, UnknownRoute
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import DELETIONS, ServedRoutes, served_routes
from abe_router.runtime.override import Override
from abe_router.text import counted, did_you_mean

#: How long an entry of `DELETIONS` stands unless it is renewed, in seconds.
CLAIMED_FOR = 10.0


class SubscriptionState(msgspec.Struct, frozen=True):
    """The state of one route: its message counts, and whether it is in the file and paused there.

    `in_file` is None if the routes of the file are unknown. The counts are None if the backend has no
    subscription for it. `oldest_at` is the time at which the oldest ready message was accepted, in seconds
    since the epoch, or None; `next_due_at` is that at which the first delayed one is due. `overrides` are
    those in force.
    """

    route: str
    in_file: bool | None
    ready: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    dead: int | None = None
    oldest_at: float | None = None
    next_due_at: float | None = None
    paused: bool = False
    overrides: tuple[Override, ...] = ()

    @property
    def is_paused(self) -> bool:
        """Whether the file or an override pauses it."""
        return self.paused or any(override.action == "pause" for override in self.overrides)

    @property
    def is_limited(self) -> bool:
        """Whether an override limits its rate."""
        return any(override.action == "limit" for override in self.overrides)

    @property
    def seen(self) -> bool:
        """Whether the backend has a subscription for it."""
        return self.ready is not None

    @property
    def waiting(self) -> int | None:
        """The number of messages that wait: ready or delayed; None if the backend has no subscription."""
        return None if self.ready is None else self.ready + (self.delayed or 0)

    @property
    def unsettled(self) -> int:
        """The number of messages that wait or are in flight."""
        return (self.waiting or 0) + (self.in_flight or 0)


def subscription_states(
    table: RouteTable, statuses: Sequence[SubscriptionStatus], overrides: Sequence[Override] = ()
) -> tuple[SubscriptionState, ...]:
    """Return the routes of a table in the order of the file, then other routes of the backend."""
    found = {status.name: status for status in statuses}
    overridden: dict[str, tuple[Override, ...]] = {}
    for override in overrides:
        overridden[override.route] = (*overridden.get(override.route, ()), override)
    names = dict.fromkeys([*table.by_name, *found, *overridden])
    return tuple(_state(table, name, found.get(name), overridden.get(name, ())) for name in names)


async def require_subscription(
    backend: Backend, route: SubscriptionName, known: Collection[str] = ()
) -> None:
    """Raise UnknownRoute, with a hint, if the route is neither in `known` nor in the backend."""
    names = [*known, *(status.name for status in await backend.status())]
    name = "/".join(route)
    if name not in names:
        hint = did_you_mean(name, names) or "`abe-router status` lists the routes"
        raise UnknownRoute(f"the backend has never seen route `{name}`", hint=hint)


def require_removed(table: RouteTable, route: SubscriptionName) -> None:
    """Raise RouteInFile if the route is still in the table, because its workers would create it again."""
    name = "/".join(route)
    if name in table.by_name:
        raise RouteInFile(
            f"`{name}` is in {table.path or 'the routes file'}",
            hint="remove it from the file first, and wait until the workers have reloaded",
        )


def not_in_file(route: str, served: ServedRoutes) -> str:
    """Return the note of a route that the file does not have: workers of another file may run it."""
    files = dict.fromkeys(report.path or "no file" for report in served.reports(route))
    if files:
        return f"not in the file, served by workers of {', '.join(files)}"
    return "not in the file"


async def require_unserved(backend: Backend, route: SubscriptionName) -> None:
    """Raise RouteServed, with the file, host and process of each worker, if the route is served.

    A worker whose report cannot be read may serve it too.
    """
    name, served = "/".join(route), await served_routes(backend)
    found = served.names(name)
    wrong = f"`{name}` is served by {counted(len(found), 'worker')}: {'; '.join(found)}"
    if not found and (unread := served.unreadable):
        wrong = f"`{name}` may be served: the report of {', '.join(unread)} is of another version"
    elif not found:
        return
    raise RouteServed(wrong, hint="stop the workers first; `--force --why TEXT` deletes under them")


@asynccontextmanager
async def deleting(
    backend: Backend, route: SubscriptionName, *, force: bool, why: str
) -> AsyncIterator[None]:
    """Keep workers from subscribing to a route while its messages are deleted.

    With `force`, living workers do not prevent it. Raise RouteServed if the route is served, and
    OperationRefused if `force` comes without a reason, or if the route is being deleted already.
    """
    if force and not why.strip():
        raise OperationRefused("`force` needs a reason", hint="give the reason with `why`, for the audit")
    if not backend.features.key_value:
        yield
        return
    name, revision = "/".join(route), 0

    async def claim() -> None:
        nonlocal revision
        stored = await backend.put(DELETIONS, name, b"{}", expected=revision, ttl=CLAIMED_FOR)
        if not stored:
            raise OperationRefused(f"`{name}` is being deleted already", hint="try again in a moment")
        revision = stored

    async def keep() -> None:
        while True:
            await asyncio.sleep(CLAIMED_FOR / 4)
            with suppress(BackendError, OperationRefused):
                await claim()

    await claim()
    try:
        if not force:
            await require_unserved(backend, route)
        await claim()  # the entry may have expired: this process may have stood still
        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
    finally:
        with suppress(BackendError):  # it expires
            await backend.delete(DELETIONS, name, expected=revision)


async def drop(
    table: RouteTable,
    backend: Backend,
    route: SubscriptionName,
    *,
    author: Author,
    why: str = "",
    force: bool = False,
) -> None:
    """Delete the subscription of a removed route: its backlog and its dead letters.

    With `force`, living workers do not prevent it. Raise RouteInFile if the table still has the route,
    UnknownRoute if the backend does not have it, and what `deleting` raises.
    """
    require_removed(table, route)
    await require_subscription(backend, route)
    async with deleting(backend, route, force=force, why=why):
        found = [status for status in await backend.status() if (status.pattern, status.group) == route]
        await backend.drop(*route)
    held = sum(status.ready + status.in_flight + status.delayed for status in found)
    dead = sum(status.dead for status in found)
    result = (
        f"{'forced: ' if force else ''}dropped {counted(held, 'message')} and {counted(dead, 'dead letter')}"
    )
    await record_act(backend, author, "drop", "/".join(route), why=why, result=result)


def _state(
    table: RouteTable, name: str, status: SubscriptionStatus | None, overrides: tuple[Override, ...]
) -> SubscriptionState:
    route = table.by_name.get(name)
    paused = route is not None and route.paused
    in_file = route is not None if table.revision else None
    if status is None:
        return SubscriptionState(name, in_file, paused=paused, overrides=overrides)
    return SubscriptionState(
        name,
        in_file,
        ready=status.ready,
        in_flight=status.in_flight,
        delayed=status.delayed,
        dead=status.dead,
        oldest_at=status.oldest_at,
        next_due_at=status.next_due_at,
        paused=paused,
        overrides=overrides,
    )
