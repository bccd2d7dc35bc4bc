"""What a consumer does when its backend fails in the middle."""

from __future__ import annotations

import asyncio
import time

import pytest
from abe_router.routing.policies import Batch, Emit

from abe_router.backends.memory import MemoryBackend
from abe_router.consumer import consumer
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
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

from .conftest import Log, make_route


class Failing(MemoryBackend):
    """Cannot be reached for the first acks; `kept` says whether it has carried them out all the same."""

    def __init__(self, *, kept: bool, failures: int = 2) -> None:
        super().__init__()
        self._kept, self._failures = kept, failures
        self.tries = 0

    async def subscribe(self, *args, **options):
        handle = await super().subscribe(*args, **options)
        settle = handle.settle

        async def settle_badly(settlements):
            self.tries += 1
            if self.tries > self._failures:
                return await settle(settlements)
            if self._kept:
                await settle(settlements)
            raise BackendUnavailable("no answer")

        handle.settle = settle_badly
        return handle


async def handle_one(backend, *, until, lease=30.0):
    """Run a route until an event of that kind, or else until it has tried its acks often enough."""
    calls = []

    async def charge(payload):
        calls.append(payload)

    log = Log()
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, lease=lease),)))
    await backend.publish("orders.created", 7)
    await log.wait_for(until)
    await router.stop(drain=1)
    return calls, log


async def test_an_ack_that_fails_is_repeated_and_its_handler_is_not():
    backend = Failing(kept=False)
    calls, log = await handle_one(backend, until=Handled)
    assert calls == [7]
    assert backend.tries == 3
    assert len(log.of(Handled)) == 1
    (status,) = await backend.status()
    assert (status.ready, status.in_flight, status.delayed, status.dead) == (0, 0, 0, 0)


async def test_an_ack_whose_answer_was_lost_is_refused_when_it_is_repeated_and_nothing_runs_again():
    backend = Failing(kept=True)
    calls, _ = await handle_one(backend, until=LeaseLost)
    assert calls == [7]
    assert backend.tries == 3
    (status,) = await backend.status()
    assert (status.ready, status.in_flight, status.delayed, status.dead) == (0, 0, 0, 0)


async def test_what_is_done_is_not_done_again_while_the_lease_is_kept_however_long_its_ack_is_refused():
    backend = Failing(kept=False, failures=6)  # which takes five times as long as the lease
    calls, log = await handle_one(backend, until=Handled, lease=0.3)
    assert calls == [7]
    assert backend.tries == 7
    assert not log.of(LeaseLost)


async def test_no_more_is_begun_than_can_be_held_while_outcomes_are_refused(monkeypatch):
    monkeypatch.setattr(consumer, "UNSETTLED", 20)
    backend = Failing(kept=False, failures=5)
    calls = []

    async def charge(payload):
        calls.append((backend.tries, payload))

    log = Log()
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, concurrency=5),)))
    for number in range(100):
        await backend.publish("orders.created", number)
    await log.wait_for(Handled, 100)
    await router.stop(drain=1)
    assert sorted(payload for _, payload in calls) == list(range(100))
    assert sum(tries <= 5 for tries, _ in calls) <= 20 + 5 + 5  # those, and what a full hand had begun before


class Refusing(MemoryBackend):
    """Refuses for good every batch in which there is something that `refuses` says it cannot keep."""

    def __init__(self, refuses, error):
        super().__init__()
        self._refuses, self._error = refuses, error

    async def subscribe(self, *args, **options):
        handle = await super().subscribe(*args, **options)
        settle = handle.settle

        async def settle_or_refuse(settlements):
            if any(self._refuses(delivery, outcome) for delivery, outcome in settlements):
                raise self._error
            return await settle(settlements)

        handle.settle = settle_or_refuse
        return handle


ERRORS = [BackendError("the receipts are no stream"), RuntimeError("a fault of the provider")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_output_that_can_never_be_kept_is_a_failure_of_its_message_and_of_no_other(error):
    backend, calls, log = Refusing(lambda _, outcome: getattr(outcome, "outputs", ()), error), [], Log()

    async def charge(payload):
        calls.append(payload)
        return {"receipt": payload} if payload == 7 else None

    for number in range(50):
        await backend.publish("orders.created", number)
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, emit=Emit("receipts")),)))
    await log.wait_for(Handled, 49)
    (died,) = await log.wait_for(DeadLettered)
    await router.stop(drain=1)
    assert died.error == f"{type(error).__name__}: {error}"
    assert sorted(calls) == sorted([*range(50), 7, 7])
    assert [len(log.of(kind)) for kind in (Retried, LeaseLost, ConsumerStarted)] == [2, 0, 1]


async def test_what_a_settle_that_failed_had_carried_out_before_is_handled_and_not_lost():
    error, backend, log = BackendError("refused"), MemoryBackend(), Log()

    async def charge(payload):
        """Do nothing."""

    for number in range(5):
        await backend.publish("orders.created", number)
    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge),)))
    (consumer,) = router.consumers.values()
    settle = consumer._subscription.settle

    async def settle_half(settlements):
        if len(settlements) > 1:
            error.settled = [delivery for delivery, _ in settlements[:-1]]
            await settle(settlements[:-1])
            raise error
        return await settle(settlements)

    consumer._subscription.settle = settle_half
    await log.wait_for(Handled, 5)
    await router.stop(drain=1)
    assert error.settled
    assert not log.of(LeaseLost)


async def test_an_ack_that_can_never_be_kept_is_given_up_and_holds_up_no_other(caplog):
    error = BackendError("no such stream")
    backend, log = Refusing(lambda delivery, _: delivery.message.payload == 7, error), Log()

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


async def test_a_batch_that_waited_beyond_its_leases_is_not_begun_before_they_are_renewed():
    happened, backend, log = [], MemoryBackend(), Log()

    async def charge(payloads):
        happened.append("handled")

    router = Reconciler(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, lease=0.3, batch=Batch(10, 0.2)),)))
    (consumer,) = router.consumers.values()
    extend = consumer._subscription.extend

    async def extend_badly(deliveries):
        happened.append("away" if len(happened) < 3 else "renewed")
        if happened[-1] == "away":
            raise BackendUnavailable("no answer")
        return await extend(deliveries)

    consumer._subscription.extend = extend_badly
    for number in range(3):
        await backend.publish("orders.created", number)
    while consumer.in_hand < 3:
        await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251  the process stands still
    await log.wait_for(Handled, 3)
    await router.stop(drain=1)
    assert happened.index("renewed") < happened.index("handled")
