"""Outputs are appended in the step that settles their cause."""

from __future__ import annotations

from abe_router.backend import ACKED, Acked, Delivery
from abe_router.conformance.harness import SOON, Harness, assert_exactly_once, take
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import Message, new_message


def output(delivery: Delivery, key: str) -> Message:
    """Return a message whose headers name its cause."""
    return new_message(key, delivery.message.body, headers={"cause": delivery.message.id})


class EmitTests(Suite):
    """Outputs and acks are one step."""

    @check("leases")
    async def test_outputs_arrive_unchanged(self, harness: Harness) -> None:
        """A bug loses an output, if its cause is acked first."""
        handle = await harness.subscribe()
        exact = await harness.backend.subscribe("emitted.one", "exact")
        wild = await harness.backend.subscribe("emitted.*", "wild")
        await harness.publish(60)
        held = await take(handle, 60)
        keys = ("emitted.one", "emitted.two")
        outputs = [output(delivery, keys[n % 2]) for n, delivery in enumerate(held)]
        batch = [(delivery, Acked((message,))) for delivery, message in zip(held, outputs, strict=True)]
        assert not await handle.settle(batch)
        assert_exactly_once(outputs[::2], await take(exact, 30))
        came = await take(wild, 60, within=SOON)
        assert_exactly_once(outputs, came)
        assert {d.message.id: dict(d.message.headers) for d in came} == {
            message.id: dict(message.headers) for message in outputs
        }

    @check("leases")
    async def test_outputs_of_one_delivery_keep_their_order(self, harness: Harness) -> None:
        """A bug reorders outputs that are appended one by one."""
        handle, other = await harness.subscribe(), await harness.backend.subscribe("emitted.one", "exact")
        await harness.publish()
        (held,) = await take(handle, 1)
        outputs = tuple(output(held, "emitted.one") for _ in range(5))
        assert not await handle.settle([(held, Acked(outputs))])
        assert [d.message.id for d in await take(other, 5)] == [message.id for message in outputs]

    @check("leases")
    async def test_one_batch_may_have_deliveries_with_and_without_outputs(self, harness: Harness) -> None:
        """A bug loses outputs of deliveries that are settled beside others without."""
        handle, other = await harness.subscribe(), await harness.backend.subscribe("emitted.one", "exact")
        await harness.publish(10)
        held = await take(handle, 10)
        outputs = [output(delivery, "emitted.one") for delivery in held[::2]]
        emitting = iter(outputs)
        batch = [(d, Acked((next(emitting),)) if n % 2 == 0 else ACKED) for n, d in enumerate(held)]
        assert not await handle.settle(batch)
        assert_exactly_once(outputs, await take(other, 5))
        assert await harness.counts() == (0, 0, 0, 0)

    @check("leases")
    async def test_lost_lease_emits_nothing(self, harness: Harness) -> None:
        """A bug duplicates outputs of a worker whose message another one handles again."""
        slow = await harness.subscribe(lease=self.lease)
        quick = await harness.subscribe()
        other = await harness.backend.subscribe("emitted.one", "exact")
        await harness.publish()
        (late,) = await take(slow, 1)
        (held,) = await take(quick, 1, within=self.lease + SOON)
        assert list(await slow.settle([(late, Acked((output(late, "emitted.one"),)))])) == [late]
        mine = output(held, "emitted.one")
        assert not await quick.settle([(held, Acked((mine,)))])
        assert list(await quick.settle([(held, Acked((mine,)))])) == [held]
        assert_exactly_once([mine], await take(other, 1))
        await harness.assert_nothing_comes(other)
