"""What a route has done is counted under the right outcome, and survives a reload."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from abe_router.backend import Delivery
from abe_router.backends.memory import MemoryBackend
from abe_router.consumer import Recovery
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.lease_keeper import LeaseKeeper
from abe_router.errors import Reject
from abe_router.messages.message import new_message
from abe_router.observe.events import DeadLettered, Events, Handled, LeaseLost, Retried, Skipped
from abe_router.observe.tally import WAITING_BOUNDS, RouteCounts, RouteTally
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.policies import Batch
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.schema import SchemaFolder

from .conftest import PatchedBackend, Running, make_route, within

NAME = "orders.created/billing"


def counts_of(running: Running) -> RouteCounts:
    return running.router.counts()[NAME]


def outcomes(counts: RouteCounts) -> dict[str, dict[str, int]]:
    """Return the outcomes that were counted at least once."""
    found = {
        outcome: {reason: count for reason, count in reasons.items() if count}
        for outcome, reasons in counts.outcomes.items()
    }
    return {outcome: reasons for outcome, reasons in found.items() if reasons}


async def charge_or_fail(order: dict[str, Any]) -> None:
    match order["how"]:
        case "reject":
            raise Reject("no")
        case "fail":
            raise ValueError("no")
        case "hang":
            await asyncio.sleep(60)


def schema(tmp_path, content: Any) -> Any:
    return SchemaFolder(tmp_path).inline(content, "order.json")


@pytest.mark.parametrize("options", [{}, {"order_by": "/id"}], ids=["any order", "ordered"])
async def test_each_delivery_is_counted_under_its_outcome_and_reason(running, tmp_path, options):
    bindings = (SchemaBinding("orders.created", schema(tmp_path, {"required": ["id"]})),)
    when = schema(tmp_path, {"properties": {"how": {"not": {"const": "skip"}}}})
    await running.route(make_route(charge_or_fail, bindings=bindings, when=when, timeout=0.05, **options))
    hows = ("ok", "reject", "fail", "hang", "skip", "ok")
    await running.publish("orders.created", *({"id": n, "how": how} for n, how in enumerate(hows)))
    await running.publish("orders.created", {"how": "ok"})
    await running.log.wait_for(DeadLettered, 4)
    await running.log.wait_for(Skipped)
    await running.router.stop()
    counts = counts_of(running)
    assert outcomes(counts) == {
        "handled": {"": 2},
        "skipped": {"when": 1},
        "retried": {"failed": 2, "timeout": 2},
        "dead": {"rejected": 1, "failed": 1, "timeout": 1, "invalid": 1},
    }
    assert sum(counts.handling) == 9  # each attempt that called the handler
    assert counts.handling_seconds >= 3 * 0.05
    assert sum(counts.waiting) == 7  # each message once, at its first attempt
    assert (counts.in_flight, counts.running, counts.prefetched) == (0, 0, 0)


async def test_a_message_that_ends_without_a_dead_letter_counts_as_dropped(running, tmp_path):
    bindings = (SchemaBinding("orders.created", schema(tmp_path, {"required": ["how"]})),)
    route = make_route(charge_or_fail, bindings=bindings, on_invalid="drop", dead_letter=False)
    await running.route(route)
    await running.publish("orders.created", {}, {"how": "reject"})
    await running.log.wait_for(DeadLettered)
    await running.log.wait_for(Skipped)
    assert outcomes(counts_of(running)) == {"dropped": {"invalid": 1, "rejected": 1}}
    assert sum(counts_of(running).handling) == 1


async def test_successes_are_counted_without_any_event(running):
    done, left = asyncio.Event(), 2000

    async def charge(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    await running.publish("orders.created", *range(left))
    quiet = Reconciler(running.backend, Events())
    await quiet.apply(RouteTable(routes=(make_route(charge),), revision="1"))
    async with within():
        await done.wait()
    await quiet.stop()
    counts = quiet.counts()[NAME]
    assert outcomes(counts) == {"handled": {"": 2000}}
    assert (sum(counts.handling), sum(counts.waiting)) == (2000, 2000)


async def test_a_batch_is_one_call_and_each_of_its_messages_has_waited(running):
    async def charge(orders: list[Any]) -> list[Any]:
        return [Reject("no") if order == 2 else None for order in orders]

    await running.publish("orders.created", *range(6))
    await running.route(make_route(charge, batch=Batch(size=3, wait=0.01), concurrency=1))
    await running.log.wait_for(DeadLettered)
    await running.router.stop()
    counts = counts_of(running)
    assert outcomes(counts) == {"handled": {"": 5}, "dead": {"rejected": 1}}
    assert (sum(counts.handling), sum(counts.waiting)) == (2, 6)


async def test_what_is_handed_back_counts_as_released(running):
    began = asyncio.Barrier(3)

    async def charge(_: object) -> None:
        await began.wait()
        await asyncio.sleep(60)

    await running.publish("orders.created", *range(3))
    await running.route(make_route(charge, concurrency=2))
    async with within():
        await began.wait()
    counts = counts_of(running)
    assert (counts.in_flight, counts.running, counts.prefetched, counts.slots) == (2, 2, 0, 2)
    await running.router.stop(drain=0)
    assert outcomes(counts_of(running)) == {"released": {"": 2}}
    assert sum(counts_of(running).handling) == 0


async def test_a_settlement_that_is_refused_counts_as_a_lost_lease():
    def patch(subscription: Any) -> None:
        async def settle(settlements: list[tuple[Delivery, Any]]) -> list[Delivery]:
            return [delivery for delivery, _ in settlements]

        subscription.settle = settle

    running = Running(PatchedBackend(patch))
    await running.publish("orders.created", {"how": "ok"}, {"how": "fail"})
    await running.route(make_route(charge_or_fail))
    await running.log.wait_for(LeaseLost, 2)
    await running.router.stop(drain=0)
    assert outcomes(counts_of(running)) == {"lease_lost": {"settlement": 2}}


async def test_a_lease_that_is_lost_before_the_handler_is_called_is_counted():
    async def extend(deliveries: list[Delivery]) -> list[Delivery]:
        return deliveries

    subscription: Any = await MemoryBackend().subscribe("orders.created", "billing")
    subscription.extend = extend
    in_flight, tally, now = InFlight(9.0, 500), RouteTally(), asyncio.get_running_loop().time()
    in_flight.buffer.append(Delivery(new_message("orders.created", b"1"), 1, None))
    in_flight.track(now - 5.0)
    route = make_route(charge_or_fail, lease=9.0)
    await LeaseKeeper(route, subscription, in_flight, Events(), Recovery(), tally).renew()
    assert outcomes(tally.counts()) == {"lease_lost": {"renewal": 1}}


async def test_waiting_is_measured_from_the_acceptance(running):
    await running.publish("orders.created", {"how": "ok"})
    await asyncio.sleep(0.06)
    await running.route(make_route(charge_or_fail))
    await running.publish("orders.created", {"how": "reject"})
    await running.log.wait_for(DeadLettered)
    counts = counts_of(running)
    assert counts.waiting_seconds >= 0.06
    assert sum(counts.waiting[: WAITING_BOUNDS.index(0.05) + 1]) <= 1
    assert counts.clock_skews == 0


async def test_handling_time_is_exact_although_the_event_loop_rounds_its_clock(running, monkeypatch):
    loop = asyncio.get_running_loop()
    exact = loop.time
    monkeypatch.setattr(loop, "time", lambda: round(exact(), 2))

    async def charge(_: object) -> None:
        time.sleep(0.001)  # noqa: ASYNC251  without an await, the loop does not turn

    await running.publish("orders.created", *range(5))
    await running.route(make_route(charge))
    await running.log.wait_for(Handled, 5)
    counts = counts_of(running)
    assert 0.005 <= counts.handling_seconds < 0.5
    assert counts.handling[:2] == (0, 0)


async def test_a_changed_route_keeps_its_counts_and_a_removed_one_loses_them(running):
    await running.route(make_route(charge_or_fail))
    await running.publish("orders.created", {"how": "fail"})
    await running.log.wait_for(DeadLettered)
    before = counts_of(running)
    await running.route(make_route(charge_or_fail, concurrency=3))
    after = counts_of(running)
    assert (after.since, after.outcomes, after.slots) == (before.since, before.outcomes, 3)
    assert running.log.of(Retried)
    await running.route()
    assert running.router.counts() == {}
    await running.route(make_route(charge_or_fail))
    assert outcomes(counts_of(running)) == {}
    assert counts_of(running).since > before.since
