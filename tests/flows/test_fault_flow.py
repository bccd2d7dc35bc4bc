"""A consumer whose backend fails in the middle of its work."""

from __future__ import annotations

import asyncio
import time

import pytest

from abe_router.consumer import fetcher, prefetch
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.observe.events import (
    ConsumerStarted,
    DeadLettered,
    Event,
    Events,
    Handled,
    LeaseLost,
    Retried,
)
from abe_router.routing.policies import Batch, Emit
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

from .conftest import EventLog, PatchedBackend, make_route


class FailingBackend(PatchedBackend):
    """Does not answer the first acks; with `carried_out` it carries them out all the same."""

    def __init__(self, *, carried_out: bool, failures: int = 2) -> None:
        super().__init__(self._fail)
        self._carried_out, self._failures = carried_out, failures
        self.tries = 0

    def _fail(self, subscription):
        settle = subscription.settle

        async def settle_without_answer(settlements):
            self.tries += 1
            if self.tries > self._failures:
                return await settle(settlements)
            if self._carried_out:
                await settle(settlements)
            raise BackendUnavailable("no answer")

        subscription.settle = settle_without_answer


async def handle_one(backend, *, until, lease=30.0):
    """Run a route on one message until an event of the kind `until`."""
    calls = []

    async def charge(payload):
        calls.append(payload)

    log = EventLog()
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, lease=lease),)))
    await backend.publish("orders.created", 7)
    await log.wait_for(until)
    await router.stop(drain=1)
    return calls, log


async def test_failed_ack_is_repeated_and_its_handler_is_not():
    backend = FailingBackend(carried_out=False)
    calls, log = await handle_one(backend, until=Handled)
    assert calls == [7]
    assert backend.tries == 3
    assert len(log.of(Handled)) == 1
    (status,) = await backend.status()
    assert (status.ready, status.in_flight, status.delayed, status.dead) == (0, 0, 0, 0)


async def test_repeated_ack_is_refused_and_nothing_runs_again():
    backend = FailingBackend(carried_out=True)
    calls, _ = await handle_one(backend, until=LeaseLost)
    assert calls == [7]
    assert backend.tries == 3
    (status,) = await backend.status()
    assert (status.ready, status.in_flight, status.delayed, status.dead) == (0, 0, 0, 0)


async def test_ack_is_repeated_as_long_as_the_lease_is_renewed():
    backend = FailingBackend(carried_out=False, failures=6)  # for five times as long as the lease
    calls, log = await handle_one(backend, until=Handled, lease=0.3)
    assert calls == [7]
    assert backend.tries == 7
    assert not log.of(LeaseLost)


async def test_fetching_stops_while_too_much_is_unsettled(monkeypatch):
    monkeypatch.setattr(fetcher, "MAX_UNSETTLED", 20)
    monkeypatch.setattr(prefetch, "FIRST_DEPTH", 5)
    monkeypatch.setattr(prefetch, "GROWTH", 1)
    backend = FailingBackend(carried_out=False, failures=5)
    calls = []

    async def charge(payload):
        calls.append((backend.tries, payload))

    log = EventLog()
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, concurrency=5),)))
    for number in range(100):
        await backend.publish("orders.created", number)
    await log.wait_for(Handled, 100)
    await router.stop(drain=1)
    assert sorted(payload for _, payload in calls) == list(range(100))
    assert sum(tries <= 5 for tries, _ in calls) <= 20 + 5 + 5  # the limit, what ran, and what was fetched


def refusing_backend(refuses, error):
    """Return a backend that refuses for good each batch with a settlement for which `refuses` is true."""

    def patch(subscription):
        settle = subscription.settle

        async def settle_or_refuse(settlements):
            if any(refuses(delivery, outcome) for delivery, outcome in settlements):
                raise error
            return await settle(settlements)

        subscription.settle = settle_or_refuse

    return PatchedBackend(patch)


ERRORS = [BackendError("the receipts are no stream"), RuntimeError("a bug of the provider")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_refused_output_fails_its_message_alone(error):
    backend, calls, log = (
        refusing_backend(lambda _, outcome: getattr(outcome, "outputs", ()), error),
        [],
        EventLog(),
    )

    async def charge(payload):
        calls.append(payload)
        return {"receipt": payload} if payload == 7 else None

    for number in range(50):
        await backend.publish("orders.created", number)
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, emit=Emit("receipts")),)))
    await log.wait_for(Handled, 49)
    (dead_lettered,) = await log.wait_for(DeadLettered)
    await router.stop(drain=1)
    assert dead_lettered.error == f"{type(error).__name__}: {error}"
    assert sorted(calls) == sorted([*range(50), 7, 7])
    assert [len(log.of(kind)) for kind in (Retried, LeaseLost, ConsumerStarted)] == [2, 0, 1]


async def test_settled_deliveries_of_a_failed_settle_are_handled():
    error, log = BackendError("refused"), EventLog()

    def patch(subscription):
        settle = subscription.settle

        async def settle_all_but_one(settlements):
            if len(settlements) > 1:
                error.settled = [delivery for delivery, _ in settlements[:-1]]
                await settle(settlements[:-1])
                raise error
            return await settle(settlements)

        subscription.settle = settle_all_but_one

    async def charge(payload):
        """Do nothing."""

    backend = PatchedBackend(patch)
    for number in range(5):
        await backend.publish("orders.created", number)
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge),)))
    await log.wait_for(Handled, 5)
    await router.stop(drain=1)
    assert error.settled
    assert not log.of(LeaseLost)


async def test_ack_refused_for_good_is_given_up_alone(caplog):
    error = BackendError("no such stream")
    backend, log = refusing_backend(lambda delivery, _: delivery.message.payload == 7, error), EventLog()

    async def charge(payload):
        """Do nothing."""

    for number in range(50):
        await backend.publish("orders.created", number)
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge),)))
    await log.wait_for(Handled, 49)
    await log.wait_for(LeaseLost)
    await router.stop(drain=1)
    assert "given up: no such stream" in caplog.text
    (status,) = await backend.status()
    assert (status.ready, status.in_flight, status.delayed, status.dead) == (0, 1, 0, 0)


async def test_batch_whose_leases_are_overdue_starts_after_their_renewal():
    happened, log = [], EventLog()

    def patch(subscription):
        extend = subscription.extend

        async def extend_after_failures(deliveries):
            happened.append("unavailable" if len(happened) < 3 else "renewed")
            if happened[-1] == "unavailable":
                raise BackendUnavailable("no answer")
            return await extend(deliveries)

        subscription.extend = extend_after_failures

    async def charge(payloads):
        happened.append("handled")

    backend = PatchedBackend(patch)
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, lease=0.3, batch=Batch(10, 0.2)),)))
    (consumer,) = router.consumers.values()
    for number in range(3):
        await backend.publish("orders.created", number)
    while consumer.in_flight < 3:
        await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251  the loop is blocked
    await log.wait_for(Handled, 3)
    await router.stop(drain=1)
    assert happened.index("renewed") < happened.index("handled")
