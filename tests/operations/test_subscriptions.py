"""The state of subscriptions, and dropping one."""

from __future__ import annotations

import pytest

from abe_router.backend import SubscriptionStatus
from abe_router.backends.memory import MemoryBackend
from abe_router.operations.audit import Author
from abe_router.operations.errors import RouteInFile, UnknownRoute
from abe_router.operations.subscriptions import (
    SubscriptionState,
    drop,
    require_subscription,
    subscription_states,
)
from abe_router.routing.handler import unimported_handler
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable

HANDLER = unimported_handler("shop:charge", ())
ADA = Author("ada@host", "command line")
TABLE = RouteTable((Route("b", "second", HANDLER, paused=True), Route("a", "first", HANDLER)), revision="r1")


def test_states_follow_the_file_and_then_the_backend() -> None:
    statuses = [SubscriptionStatus("a", "first", 1, 2, 3, 4, 5.0), SubscriptionStatus("a", "old", 1, 0, 0, 0)]
    assert subscription_states(TABLE, statuses) == (
        SubscriptionState("b/second", in_file=True, paused=True),
        SubscriptionState("a/first", True, ready=1, in_flight=2, delayed=3, dead=4, oldest_at=5.0),
        SubscriptionState("a/old", False, ready=1, in_flight=0, delayed=0, dead=0),
    )
    assert [state.seen for state in subscription_states(TABLE, statuses)] == [False, True, True]


def test_states_say_nothing_about_a_file_that_was_not_read() -> None:
    (state,) = subscription_states(RouteTable(), [SubscriptionStatus("a", "old", 1, 0, 0, 0)])
    assert state.in_file is None


async def test_unknown_route_is_an_error_with_a_suggestion() -> None:
    async with MemoryBackend() as backend:
        await backend.subscribe("orders.created", "billing")
        await require_subscription(backend, ("orders.created", "billing"))
        await require_subscription(backend, ("a", "first"), TABLE.by_name)
        with pytest.raises(UnknownRoute) as raised:
            await require_subscription(backend, ("orders.created", "biling"))
    assert raised.value.hint == "did you mean `orders.created/billing`?"


async def test_drop_deletes_only_a_subscription_that_left_the_table() -> None:
    async with MemoryBackend() as backend:
        await backend.subscribe("a", "first")
        await backend.subscribe("a", "old")
        with pytest.raises(RouteInFile):
            await drop(TABLE, backend, ("a", "first"), author=ADA)
        with pytest.raises(UnknownRoute):
            await drop(TABLE, backend, ("a", "unknown"), author=ADA)
        await drop(TABLE, backend, ("a", "old"), author=ADA)
        assert [status.name for status in await backend.status()] == ["a/first"]
