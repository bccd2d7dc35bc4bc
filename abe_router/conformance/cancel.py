"""A call that is cancelled at any of its awaits loses, doubles and blocks nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from abe_router.backend import ACKED, Dead, Delivery
from abe_router.conformance.harness import (
    GROUP,
    KEY,
    SOON,
    Harness,
    ack,
    assert_exactly_once,
    dead_letter,
    steps,
    take,
)
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import Message, new_message

#: Moments at which a call is cancelled. The first are one round of the event loop apart, the later ones
#: milliseconds.
MOMENTS = 24


class CancelTests(Suite):
    """Each call is cancelled at once, then a moment later, and so on until it ends first."""

    @check("leases")
    async def test_cancelled_fetch_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what was on its way when the fetch was cancelled; in one trial a third of all."""
        handle, other = await harness.subscribe(lease=self.lease), await harness.subscribe()
        sent = await harness.publish(MOMENTS)
        came: list[Delivery] = []
        for moment in range(MOMENTS):
            fetched = await _cancelled(handle.fetch(1, 5.0), moment) or []
            await ack(handle, fetched)
            came += fetched
        rest = await take(other, len(sent) - len(came), within=self.lease + SOON)
        assert_exactly_once(sent, [*came, *rest])

    @check("leases")
    async def test_many_cancelled_fetches_under_load_lose_nothing(self, harness: Harness) -> None:
        """A bug loses messages when fetches are cancelled at random moments under load."""
        handle = await harness.subscribe(lease=self.lease)
        chance = random.Random(20)  # noqa: S311
        came: list[Delivery] = []
        sent: list[Message] = []
        for _ in range(60):
            fetching = asyncio.create_task(handle.fetch(3, 5.0))
            sent += await harness.publish(2)
            await asyncio.sleep(chance.random() * 0.003)
            fetching.cancel()
            (result,) = await asyncio.gather(fetching, return_exceptions=True)
            if not isinstance(result, BaseException):
                await ack(handle, result)
                came += result
        other = await harness.subscribe()
        if len(came) < len(sent):
            rest = await take(other, len(sent) - len(came), within=self.lease + SOON)
            await ack(other, rest)
            came += rest
        assert_exactly_once(sent, came)
        await harness.assert_nothing_comes(other, self.lease)

    @check()
    async def test_cancelled_append_appends_once_or_not_at_all(self, harness: Harness) -> None:
        """A bug duplicates what is sent again, or gives the next call the wrong reply."""
        handle = await harness.subscribe()
        cut, whole = [], []
        for moment in range(MOMENTS):
            message = new_message(KEY, b"0")
            await _cancelled(_append(harness, message), moment)
            cut.append(message)
            whole += await harness.publish()
        came = await take(handle, len(whole))
        came += await handle.fetch(MOMENTS, 0.3)
        ids = {delivery.message.id for delivery in came}
        assert_exactly_once([*whole, *(message for message in cut if message.id in ids)], came)

    @check("dedupe")
    async def test_cancelled_append_once_can_be_repeated(self, harness: Harness) -> None:
        """A bug loses what is remembered and not kept; or it duplicates what is kept and not remembered."""
        handle = await harness.subscribe()
        sent = []
        for moment in range(MOMENTS):
            message = new_message(KEY, b"0", id=f"id-{moment}")
            await _cancelled(harness.backend.append_once([(message, 60.0)]), moment)
            await harness.backend.append_once([(message, 60.0)])
            sent.append(message)
        assert_exactly_once(sent, await take(handle, MOMENTS))
        await harness.assert_nothing_comes(handle)

    @check("leases")
    async def test_cancelled_ack_can_be_repeated(self, harness: Harness) -> None:
        """A bug duplicates handled messages whose settlement was cut short."""
        handle = await harness.subscribe()
        await harness.publish(MOMENTS)
        held = await take(handle, MOMENTS)
        for moment, delivery in enumerate(held):
            await _cancelled(handle.settle([(delivery, ACKED)]), moment)
        again = await handle.settle([(delivery, ACKED) for delivery in held])
        assert len(again) <= len(held)
        assert await harness.counts() == (0, 0, 0, 0)
        await harness.assert_nothing_comes(await harness.subscribe())

    @check("leases", "dead_letters")
    async def test_cancelled_dead_letter_is_in_one_state(self, harness: Harness) -> None:
        """A bug loses or duplicates a message that is neither dead nor ready, or both."""
        handle = await harness.subscribe()
        sent = await harness.publish(MOMENTS)
        held = await take(handle, MOMENTS)
        for moment, delivery in enumerate(held):
            await _cancelled(handle.settle([(delivery, Dead(dead_letter(delivery)))]), moment)
            assert sum(await harness.counts()) == MOMENTS
        await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])
        assert await harness.counts() == (0, 0, 0, MOMENTS)
        dead_letters = await harness.backend.dead_letters(KEY, GROUP)
        assert sorted(each.message.id for each in dead_letters) == sorted(message.id for message in sent)

    @check("leases", "dead_letters")
    async def test_cancelled_replay_moves_once_or_not_at_all(self, harness: Harness) -> None:
        """A bug loses or duplicates a dead letter that is taken out and not put in."""
        handle = await harness.subscribe()
        sent = await harness.publish(MOMENTS)
        held = await take(handle, MOMENTS)
        assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])
        for moment, dead in enumerate(await harness.backend.dead_letters(KEY, GROUP)):
            await _cancelled(harness.backend.replay(KEY, GROUP, [dead.id]), moment)
            ready, _, _, left = await harness.counts()
            assert ready + left == MOMENTS
        rest = await harness.backend.dead_letters(KEY, GROUP)
        await harness.backend.replay(KEY, GROUP, [each.id for each in rest])
        assert_exactly_once(sent, await take(handle, MOMENTS))

    @check("leases")
    async def test_backend_works_after_any_cancelled_call(self, harness: Harness) -> None:
        """A bug loses a reply, if the next call gets the one to a cancelled call."""
        handle = await harness.subscribe()
        await harness.publish(2)
        held = await take(handle, 2)
        for moment in range(MOMENTS):
            await _cancelled(harness.backend.status(), moment)
            await _cancelled(handle.extend(held), moment)
            await _cancelled(harness.backend.take_tokens("route", 1_000.0, 1), moment)
            await _cancelled(harness.backend.subscribe(KEY, GROUP), moment)
            assert await harness.counts() == (0, 2, 0, 0)
            assert list(await harness.backend.dead_letters(KEY, GROUP)) == []
        await ack(handle, held)
        sent: list[Message] = await harness.publish(2)
        assert_exactly_once(sent, await take(handle, 2))


async def _append(harness: Harness, message: Message) -> None:
    await harness.backend.append([message])


async def _cancelled(call: Coroutine[Any, Any, Any], moment: int) -> Any:
    """Run the call, cancel it at that moment, and return its result, or None."""
    running = asyncio.create_task(call)
    if moment < MOMENTS // 2:
        await steps(moment)
    else:
        await asyncio.sleep((moment - MOMENTS // 2) ** 2 / 20_000)
    running.cancel()
    await asyncio.wait({running})
    return None if running.cancelled() else running.result()
