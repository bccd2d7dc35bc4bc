"""Edits of a running router: after any sequence of tables, it is what a new start with the last one is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from random import Random

from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import Message
from abe_router.observe.events import Event, Events, Handled
from abe_router.routing.handler import Handler, handler_from
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from fuzz.corpus import Corpus
from fuzz.target.target import Input, Target, demand

_KEYS = ("a", "b", "a.b", "*", "#", "a.*")
_SENT = ("a", "b", "a.b", "c")
#: How long the messages of one case may take, in seconds. They take milliseconds if nothing is wrong.
_LONGEST = 20.0


class EditTarget(Target):
    """Applies random tables one after another, sometimes overlapping, while messages arrive."""

    name = "edit"
    about = "after any edits a router runs the last table; each message is handled once by each group"
    short = 200

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return tables, each with whether to wait for it. A route is a handler, concurrency, pause."""
        tables = []
        for _ in range(random.randint(1, 6)):
            chosen = random.sample(_KEYS, random.randrange(len(_KEYS) + 1))
            routes = {
                key: [random.randrange(3), random.choice((1, 2)), random.random() < 0.1] for key in chosen
            }
            tables.append([routes, random.random() < 0.6])
        return tables

    def check(self, given: Input) -> None:
        """Apply the tables and compare with a router that starts with the last one."""
        asyncio.run(_apply(given))


async def _apply(tables: Input) -> None:
    # For each group and message, the handlers that were called.
    calls: Counter[tuple[str, str]] = Counter()
    changed = asyncio.Event()
    handlers = [_handler(number) for number in range(3)]

    def record(event: Event) -> None:
        assert isinstance(event, Handled)
        calls[event.route, event.message_id] += 1
        changed.set()

    async with MemoryBackend() as backend:
        reconciler = Reconciler(backend, Events([((Handled,), record)]))
        applying, subscribed, sent = [], set[str](), list[Message]()
        expected: Counter[tuple[str, str]] = Counter()
        table = RouteTable()
        for routes, waits in tables:
            table = _table(routes, handlers)
            applying.append(asyncio.create_task(reconciler.apply(table)))
            if waits:
                await asyncio.gather(*applying)
                sent += [await backend.publish(key, len(sent)) for key in _SENT]
            else:
                await asyncio.sleep(0)
        await asyncio.gather(*applying)
        sent += [await backend.publish(key, len(sent)) for key in _SENT]
        fresh = Reconciler(MemoryBackend(), Events([]))
        await fresh.apply(table)
        _compare(reconciler, fresh, table)
        await fresh.stop(0.0)
        # A new subscription begins with the earliest message, so each running group gets all that match.
        subscribed |= {route.name for route in table.routes if not route.paused}
        for message in sent:
            for route in table.match(message.key):
                if route.name in subscribed:
                    expected[route.name, message.id] = 1
        try:
            async with asyncio.timeout(_LONGEST):
                while any(calls[name] < 1 for name in expected):
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            demand(False, f"not handled: {[name for name in expected if not calls[name]]}")
        await reconciler.stop()
        twice = {name: count for name, count in calls.items() if count > 1}
        demand(not twice, f"handled more than once: {twice}")
        demand(not reconciler.consumers, "a consumer runs after the stop")


def _compare(edited: Reconciler, fresh: Reconciler, table: RouteTable) -> None:
    demand(edited.table == table == fresh.table, "another table is in force")
    here, there = set(edited.consumers), set(fresh.consumers)
    demand(here == there, f"edits left the consumers {here}, a new start has {there}")


def _handler(number: int) -> Handler:
    async def handle(_: object) -> int:
        await asyncio.sleep(0)
        return number

    return handler_from(handle, f"shop:handle_{number}")


def _table(routes: Mapping[str, tuple[int, int, bool]], handlers: list[Handler]) -> RouteTable:
    made = tuple(
        Route(
            key,
            "g",
            handlers[number % 3],
            concurrency=max(1, concurrency),
            paused=bool(paused),
            retry=RetryPolicy(attempts=1),
        )
        for key, (number, concurrency, paused) in routes.items()
    )
    return RouteTable(routes=made, keys=tuple(routes), unrouted="allow", revision=repr(routes))
