"""What a consumer does when its backend fails in the middle."""

from __future__ import annotations

from abe_router.backends.memory import MemoryBackend
from abe_router.consumer import consumer
from abe_router.errors import BackendUnavailable
from abe_router.event import Event, Events, Handled, LeaseLost
from abe_router.route import RouteTable
from abe_router.router import Router

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
    router = Router(backend, Events([((Event,), log)]))
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
    router = Router(backend, Events([((Event,), log)]))
    await router.apply(RouteTable(routes=(make_route(charge, concurrency=5),)))
    for number in range(100):
        await backend.publish("orders.created", number)
    await log.wait_for(Handled, 100)
    await router.stop(drain=1)
    assert sorted(payload for _, payload in calls) == list(range(100))
    assert sum(tries <= 5 for tries, _ in calls) <= 20 + 5 + 5  # those, and what a full hand had begun before
