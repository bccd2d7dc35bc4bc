"""A thread renews leases while the event loop is blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from abe_router.backend import ACKED, Delivery, Subscription
from abe_router.conformance.harness import SOON, Harness, ack, assert_exactly_once, numbers, steps, take
from abe_router.conformance.suite import Suite, check


class RenewalTests(Suite):
    """`renew` keeps what a worker runs whose event loop is blocked, and nothing else."""

    @property
    def _blocked_lease(self) -> float:
        return max(0.5, self.lease)

    def _renew_while_blocked(self, handle: Subscription, held: Sequence[Delivery]) -> None:
        """Block the event loop for longer than the lease, while a thread renews."""
        until = time.monotonic() + 1.25 * self._blocked_lease

        def renew() -> None:
            while time.monotonic() < until:
                handle.renew(held)
                time.sleep(0.01)

        _block(renew)

    @check("leases", measures_time=True)
    async def test_renewal_while_the_loop_is_blocked_keeps_the_leases(self, harness: Harness) -> None:
        """A bug duplicates what a worker runs while one of its handlers blocks the event loop."""
        blocked, other = await harness.subscribe(lease=self._blocked_lease), await harness.subscribe()
        sent = await harness.publish(4)
        held = await take(blocked, 3)
        self._renew_while_blocked(blocked, held)
        came = await other.fetch(10, self.pause)
        assert numbers(came) == [3]
        await ack(blocked, held)
        await ack(other, came)
        assert_exactly_once(sent, [*held, *came])
        assert await harness.counts() == (0, 0, 0, 0)

    @check("leases", measures_time=True)
    async def test_leases_that_are_not_renewed_end_while_the_loop_is_blocked(self, harness: Harness) -> None:
        """A bug loses what a hanging handler holds, if all of its worker is renewed."""
        blocked, other = await harness.subscribe(lease=self._blocked_lease), await harness.subscribe()
        await harness.publish(3)
        running, *hanging = await take(blocked, 3)
        self._renew_while_blocked(blocked, [running])
        came = list[Delivery]()
        for _ in range(15):
            if len(came) < 2:
                await asyncio.to_thread(blocked.renew, [running])
                came += await other.fetch(10, self._blocked_lease / 5)
        assert numbers(came) == numbers(hanging)
        await ack(blocked, [running])

    @check("order", measures_time=True)
    async def test_renewal_while_the_loop_is_blocked_keeps_the_ownership(self, harness: Harness) -> None:
        """A bug lets a second owner handle what comes after the messages of the first one."""
        blocked = await harness.subscribe_exclusive(lease=self._blocked_lease)
        other = await harness.subscribe_exclusive(lease=self._blocked_lease, backend=harness.another())
        await harness.publish(3)
        held = await take(blocked, 2)
        self._renew_while_blocked(blocked, held)
        assert not await other.fetch(10, self.pause)
        await ack(blocked, held)
        assert numbers(await take(blocked, 1)) == [2]

    @check("leases", "processes", measures_time=True)
    async def test_renewal_keeps_what_a_fetch_got_while_the_loop_is_blocked(self, harness: Harness) -> None:
        """Delivered twice otherwise: what came for a fetch while a handler blocks the event loop."""
        blocked, other = await harness.subscribe(lease=self._blocked_lease), await harness.subscribe()
        await harness.publish()
        held = await take(blocked, 1)
        fetching = asyncio.create_task(blocked.fetch(10, 20.0))
        await harness.pause()

        async def publish() -> None:
            async with self.make_backend(harness.prefix) as backend:
                await harness.publish(3, backend=backend)

        _block(lambda: asyncio.run(publish()))
        self._renew_while_blocked(blocked, held)
        # A provider may also lease nothing for a fetch that waits, until the event loop continues.
        came = [*await other.fetch(10, self.pause)]
        blocked.interrupt()
        came += await fetching
        came += await take(other, 3 - len(came))
        assert sorted(numbers(came)) == [0, 1, 2]
        assert {delivery.deliveries for delivery in came} == {1}

    @check("leases", measures_time=True)
    async def test_renewal_keeps_what_is_on_its_way_to_a_blocked_loop(self, harness: Harness) -> None:
        """Delivered twice otherwise: the result of a fetch that the blocked event loop does not read."""
        blocked, other = await harness.subscribe(lease=self._blocked_lease), await harness.subscribe()
        await harness.publish(4)
        held = await take(blocked, 1)
        fetching = asyncio.create_task(blocked.fetch(3, 20.0))
        await steps(3)
        known = fetching.result() if fetching.done() else ()
        self._renew_while_blocked(blocked, [*held, *known])
        came = [*await fetching, *await other.fetch(10, self.pause)]
        assert sorted(numbers(came)) == [1, 2, 3]
        assert {delivery.deliveries for delivery in came} == {1}

    @check("leases")
    async def test_stale_renewal_takes_nothing_back(self, harness: Harness) -> None:
        """A bug duplicates a message that a late renewal takes back from its new holder."""
        stale, owner = await harness.subscribe(lease=self.lease), await harness.subscribe()
        await harness.publish()
        held = await take(stale, 1)
        taken = await take(owner, 1, within=self.lease + SOON)
        _block(lambda: stale.renew(held))
        assert list(await stale.settle([(held[0], ACKED)])) == held
        assert not await owner.extend(taken)
        await ack(owner, taken)

    @check("leases")
    async def test_renewal_does_not_revive_settled_messages(self, harness: Harness) -> None:
        """A bug duplicates an acked message that a late renewal makes ready again."""
        handle = await harness.subscribe(lease=self.lease)
        await harness.publish()
        held = await take(handle, 1)
        await ack(handle, held)
        _block(lambda: handle.renew(held))
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.assert_nothing_comes(handle, self.lease * 2)

    @check("leases")
    async def test_renewal_beside_the_event_loop_harms_nothing(self, harness: Harness) -> None:
        """A bug loses an ack that a renewal in another thread undoes."""
        handle = await harness.subscribe()
        sent = await harness.publish(50)
        held = await take(handle, 50)

        async def settle() -> None:
            for delivery in held:
                await ack(handle, [delivery])

        def renew() -> None:
            for _ in range(20):
                handle.renew(held)

        await asyncio.gather(settle(), asyncio.to_thread(renew))
        assert_exactly_once(sent, held)
        assert await harness.counts() == (0, 0, 0, 0)


def _block(call: Callable[[], None]) -> None:
    """Call a function in a thread, and block the event loop until it has returned; raise what it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10.0)
    assert not thread.is_alive(), "the renewal waits for the event loop"
    if errors:
        raise AssertionError(f"the renewal failed: {errors[0]!r}") from errors[0]
