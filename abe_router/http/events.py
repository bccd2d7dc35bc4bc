"""The state of the routes as server-sent events: what has changed, once a second.

All clients share the status of the backend and the counts of the consumers. Clients that may see the same
keys share their events too. Nothing is read while no client watches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Caller, Role, require
from abe_router.http.broadcast import Broadcast, format_event
from abe_router.http.endpoint import Content, Endpoint, Parameter
from abe_router.http.event_stream import MEDIA_TYPE, EventStream
from abe_router.http.site import Readiness, Site
from abe_router.observe.tally import RouteCounts
from abe_router.operations.condition import RUNNING, Condition
from abe_router.operations.rate_history import RouteFigures
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.text import mask_credentials

#: Interval of the events, in seconds.
EVERY = 1.0

_DETAILS = """\
The answer is a stream of server-sent events.

- `state` has the routes that have changed: their messages in the backend, what their consumers have done,
  what they do now, and what is wrong. The first event has all routes, and `complete` is true in it.
- `dropped` says how many events were dropped because the client is too slow: connect again.
- `closing` says that the server ends."""


class RouteNow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A route: its messages in the backend, and what its consumers have done.

    `figures` and `condition` say what it does now, and what is wrong. Without a condition, it runs.
    """

    state: SubscriptionState | None = None
    counts: RouteCounts | None = None
    figures: RouteFigures | None = None
    condition: Condition | None = None


class StateEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The data of an event `state`.

    `at` is the time, in seconds since the epoch. `routes` are the routes that have changed since the last
    event, by name; all of them if `complete`. `removed` are those that are gone. `backend` says why the
    backend cannot be asked, or is empty. `workers` is the number of workers that report, and `trouble` says
    which one is silent, or is empty; a caller that is limited to some keys does not see the workers.
    """

    at: float
    revision: str
    readiness: Readiness
    routes: Mapping[str, RouteNow] = {}
    removed: tuple[str, ...] = ()
    complete: bool = False
    backend: str = ""
    workers: int = 0
    trouble: str = ""


class StateFeed:
    """Computes the events for all callers that may see the same keys, as `caller` does."""

    def __init__(self, site: Site, caller: Caller, *, counts: bool = True) -> None:
        self._site, self._caller, self._counts = site, caller, counts
        self._states: Mapping[str, SubscriptionState] = {}
        self._routes: Mapping[str, RouteNow] = {}
        self._failure = ""

    def first(self) -> bytes:
        """Return an event with all routes as the last event left them."""
        return self._event(self._routes, complete=True)

    async def produce(self) -> AsyncGenerator[bytes, None]:
        """Yield an event at the start and then once a second."""
        self._routes = {}
        while True:
            before, is_first = self._routes, not self._routes
            self._routes = await self._read()
            changed = {name: now for name, now in self._routes.items() if before.get(name) != now}
            removed = tuple(name for name in before if name not in self._routes)
            yield self._event(changed, removed, complete=is_first)
            await asyncio.sleep(EVERY)

    async def _read(self) -> Mapping[str, RouteNow]:
        counters = self._site.source.counters
        counts = {} if counters is None else counters.counts()
        try:
            async with asyncio.timeout(EVERY):
                status = await self._site.status.get()
            self._states = {state.route: state for state in status.routes}
            self._failure = ""
        except TimeoutError:
            self._failure = "the backend does not answer"
        except BackendError as error:
            self._failure = mask_credentials(str(error))
        names = [
            name
            for name in dict.fromkeys([*self._states, *counts])
            if self._caller.allows_route(Role.VIEWER, name)
        ]
        sampler = self._site.sampler
        conditions = sampler.conditions(self._states[name] for name in names if name in self._states)
        return {
            name: RouteNow(
                self._states.get(name),
                counts.get(name) if self._counts else None,
                msgspec.structs.replace(sampler.history.figures(name), calls=()),
                None if (condition := conditions.get(name)) == RUNNING else condition,
            )
            for name in names
        }

    def _event(
        self, routes: Mapping[str, RouteNow], removed: tuple[str, ...] = (), *, complete: bool
    ) -> bytes:
        source = self._site.source
        sees, sampler = not self._caller.is_limited, self._site.sampler
        event = StateEvent(
            time.time(),
            source.table.revision,
            source.readiness,
            routes,
            removed,
            complete,
            self._failure,
            sum(not worker.is_silent for worker in sampler.watch.workers()) if sees else 0,
            sampler.trouble if sees else "",
        )
        return format_event("state", event)


def routes(site: Site) -> list[Route]:
    """Return the endpoint."""
    shared: dict[tuple[tuple[str, ...], bool], Broadcast] = {}

    async def events(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        site.streams.check(caller.name)
        for each in [each for each, broadcast in shared.items() if broadcast.is_idle]:
            del shared[each]
        kind = caller.keys, request.query_params.get("counts") != "no"
        if kind not in shared:
            feed = StateFeed(site, caller, counts=kind[1])
            shared[kind] = Broadcast(feed.produce, first=feed.first)
        return EventStream(shared[kind], site.security, site.closing, site.streams)

    return [
        Endpoint(
            "GET",
            "/v1/events",
            events,
            Role.VIEWER,
            "The state of the routes, once a second",
            details=_DETAILS,
            parameters=[Parameter("counts", "`no` leaves out the counts of the consumers")],
            answers={200: Content("the events", {MEDIA_TYPE: str})},
            problems={429: "too many streams are open, of the token or of all"},
        )
    ]
