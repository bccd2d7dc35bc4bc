"""The transitions: what was before, what is told, and what is after."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from abe_router.backend import (
    ACKED,
    RELEASED,
    Acked,
    Backend,
    Dead,
    DeadLetter,
    Delayed,
    Delivery,
    ExclusiveSubscription,
    Outcome,
    Reason,
    Subscription,
)
from abe_router.messages.message import Message

from .picture import Comes, KeptDead, Name, Picture

#: A subscription of one key, and one that sees every key.
ONE, ALL = ("a.b", "billing"), ("a.*", "audit")
#: Leases and delays, in seconds: each has to run out before one can look.
SHORT = 0.25
#: A window that does not end in a story, in seconds; some put the clock forward by hours.
WINDOW = 86_400.0

Handle = TypeVar("Handle", bound=Subscription)
#: Called where the steps begin that are cut.
Begin = Callable[[], None]


@dataclass(frozen=True)
class Story:
    """A transition that is told to a backend after `prepare`.

    After a cut everything is as in `old`, in one of those `between` or in `new`. If it is not `whole`, that
    holds for each message by itself where a backend takes several steps. Of messages in `order` the first few
    are there. Told again, everything is as in `new`, with those that `repeat` once or twice. Until they have
    passed over what is for another, subscriptions may be `overcounted`.
    """

    name: str
    tell: Callable[[Backend, Begin], Awaitable[object]]
    old: Picture
    new: Picture
    prepare: Callable[[Backend], Awaitable[object]]
    whole: bool = True
    between: Sequence[Picture] = ()
    order: Sequence[str] = ()
    repeat: Collection[str] = ()
    overcounted: Collection[Name] = ()


def message(id: str, key: str = "a.b") -> Message:
    """Return a message of that id."""
    return Message(id, key, b"1", {}, 1.0, 1)


def comes(*ids: str, attempt: int = 1, deliveries: int = 1) -> dict[str, Comes | KeptDead]:
    """Return that these messages are handed out."""
    return dict.fromkeys(ids, Comes(attempt, deliveries))


def nothing_begins() -> None:
    """Cut nothing."""


async def hold(
    backend: Backend, name: Name, begin: Begin = nothing_begins
) -> tuple[Subscription, list[Delivery]]:
    """Return a handle that holds all there is; `begin` is called before it fetches."""
    return await held_by(backend, await backend.subscribe(*name, lease=SHORT), begin)


async def hold_alone(
    backend: Backend, name: Name, begin: Begin = nothing_begins
) -> tuple[ExclusiveSubscription, list[Delivery]]:
    """Return an exclusive handle that holds all there is; `begin` is called before it fetches."""
    return await held_by(backend, await backend.subscribe_exclusive(*name, lease=SHORT), begin)


async def held_by(backend: Backend, handle: Handle, begin: Begin) -> tuple[Handle, list[Delivery]]:
    """Let the handle fetch all there is."""
    name = handle.pattern, handle.group
    counts = next(s for s in await backend.status() if (s.pattern, s.group) == name)
    # Not until nothing comes, for by then a lease may have run out, and what is held comes again.
    expected, held = counts.ready + counts.in_flight + counts.delayed, list[Delivery]()
    begin()
    while len(held) < expected:
        held += await handle.fetch(100, 1.0)
    return handle, held


async def taken_alone(backend: Backend) -> None:
    """Of the three, both of one subscription were in the hands of one who had the place and is gone."""
    await three(backend)
    await hold_alone(backend, ONE)
    await asyncio.sleep(SHORT)


def letter(delivery: Delivery) -> DeadLetter:
    """Return the dead letter of a delivery."""
    reason = Reason("failed", "ValueError", "no stock")
    m = delivery.message
    return DeadLetter("a.b/billing", m, reason, m.attempt, delivery.deliveries, 1.0, 2.0)


async def three(backend: Backend) -> None:
    """Two messages for both, and one for all."""
    for name in (ONE, ALL):
        await backend.subscribe(*name)
    await backend.append([message("m1"), message("m2"), message("m3", "a.c")])


async def three_before_now(backend: Backend) -> None:
    """Let the millisecond end, for a subscription's beginning is kept in milliseconds."""
    await three(backend)
    await asyncio.sleep(0.002)


async def dead(backend: Backend) -> None:
    """Of the three, both of one subscription are dead."""
    await three(backend)
    handle, held = await hold(backend, ONE)
    assert not await handle.settle([(delivery, Dead(letter(delivery))) for delivery in held])


async def settled(backend: Backend) -> None:
    """Of the three all are settled; one more is not."""
    await three(backend)
    for name in (ONE, ALL):
        handle, held = await hold(backend, name)
        assert not await handle.settle([(delivery, ACKED) for delivery in held])
    await backend.append([message("m4")])


async def taken(backend: Backend) -> None:
    """Of the three, both of one subscription were in the hands of one who is gone."""
    await three(backend)
    await hold(backend, ONE)
    await asyncio.sleep(SHORT)


async def nothing(backend: Backend) -> None:
    """Nothing at all."""


def appending(*messages: Message) -> Callable[[Backend, Begin], Awaitable[object]]:
    async def tell(backend: Backend, begin: Begin) -> None:
        await backend.open()
        begin()
        await backend.append(messages)

    return tell


def appending_once(*messages: Message) -> Callable[[Backend, Begin], Awaitable[object]]:
    async def tell(backend: Backend, begin: Begin) -> None:
        await backend.open()
        begin()
        await backend.append_once([(message, WINDOW) for message in messages])

    return tell


def settling(
    name: Name, outcome: Callable[[Delivery], Outcome]
) -> Callable[[Backend, Begin], Awaitable[object]]:
    async def tell(backend: Backend, begin: Begin) -> None:
        handle, held = await hold(backend, name)
        begin()
        first = [delivery for delivery in held if delivery.message.attempt == 1]
        assert not await handle.settle([(delivery, outcome(delivery)) for delivery in first])

    return tell


def subscribing(start: float) -> Callable[[Backend, Begin], Awaitable[object]]:
    async def tell(backend: Backend, begin: Begin) -> None:
        await backend.open()
        begin()
        await backend.subscribe("a.*", "late", start=start)

    return tell


async def beginning(backend: Backend, begin: Begin) -> None:
    begin()
    await backend.subscribe(*ONE)


def fetching(name: Name) -> Callable[[Backend, Begin], Awaitable[object]]:
    return lambda backend, begin: hold(backend, name, begin)


def fetching_alone(name: Name) -> Callable[[Backend, Begin], Awaitable[object]]:
    return lambda backend, begin: hold_alone(backend, name, begin)


async def postponing(backend: Backend, begin: Begin) -> None:
    handle, held = await hold_alone(backend, ONE)
    begin()
    first = [delivery for delivery in held if delivery.message.attempt == 1]
    assert all(await handle.postpone([(delivery, SHORT) for delivery in first]))


async def extending(backend: Backend, begin: Begin) -> None:
    handle, held = await hold(backend, ONE)
    begin()
    assert not await handle.extend(held)


async def closing(backend: Backend, begin: Begin) -> None:
    handle, _ = await hold(backend, ONE)
    begin()
    await handle.close()
    await backend.close()


async def replaying(backend: Backend, begin: Begin) -> None:
    ids = [letter.id for letter in await backend.dead_letters(*ONE)]
    begin()
    assert await backend.replay(*ONE, ids) == len(ids)


async def purging(backend: Backend, begin: Begin) -> None:
    ids = [letter.id for letter in await backend.dead_letters(*ONE)]
    begin()
    assert await backend.purge(*ONE, ids) == len(ids)


async def dropping(backend: Backend, begin: Begin) -> None:
    await backend.open()
    begin()
    await backend.drop(*ONE)


async def beginning_anew(backend: Backend, begin: Begin) -> None:
    await dropping(backend, begin)
    await backend.subscribe(*ONE)


async def trimming(backend: Backend, begin: Begin) -> None:
    await backend.open()
    begin()
    while await backend.trim({}):
        pass


BASE: Picture = {ONE: comes("m1", "m2"), ALL: comes("m1", "m2", "m3")}
HELD: Picture = {**BASE, ONE: comes("m1", "m2", deliveries=2)}
DEAD: Picture = {**BASE, ONE: {"m1": KeptDead(), "m2": KeptDead()}}
LEFT: Picture = {ONE: comes("m4"), ALL: comes("m4")}
MANY = [f"n{n}" for n in range(1, 101)]


def outputs(delivery: Delivery) -> Outcome:
    return Acked((message(f"from-{delivery.message.id}", "a.c"),))


def same_output(_: Delivery) -> Outcome:
    return Acked((message("from-either", "a.c"),), WINDOW)


STORIES = (
    Story(
        "append of several keys",
        appending(message("n1"), message("n2", "a.c"), message("n3")),
        BASE,
        {ONE: comes("m1", "m2", "n1", "n3"), ALL: comes("m1", "m2", "m3", "n1", "n2", "n3")},
        three,
        repeat=("n1", "n2", "n3"),
    ),
    Story(
        "append of several batches",
        appending(*map(message, MANY)),
        {ONE: {}},
        {ONE: comes(*MANY)},
        lambda backend: backend.subscribe(*ONE),
        whole=False,
        order=MANY,
        repeat=MANY,
    ),
    Story(
        "append of a new key",
        appending(message("n1", "a.new")),
        BASE,
        {**BASE, ALL: comes("m1", "m2", "m3", "n1")},
        three,
        repeat=("n1",),
    ),
    Story(
        "append once",
        appending_once(message("n1"), message("n2"), message("n1")),
        BASE,
        {ONE: comes("m1", "m2", "n1", "n2"), ALL: comes("m1", "m2", "m3", "n1", "n2")},
        three,
    ),
    Story(
        "append once of several keys",
        appending_once(message("n1"), message("n2", "a.c"), message("n3")),
        BASE,
        {ONE: comes("m1", "m2", "n1", "n3"), ALL: comes("m1", "m2", "m3", "n1", "n2", "n3")},
        three,
        whole=False,
    ),
    Story("first use", beginning, {}, {ONE: {}}, nothing),
    Story(
        "subscribe from the beginning", subscribing(0.0), BASE, {**BASE, ("a.*", "late"): BASE[ALL]}, three
    ),
    Story(
        "subscribe from now on",
        subscribing(math.inf),
        BASE,
        {**BASE, ("a.*", "late"): {}},
        three_before_now,
    ),
    Story(
        "fetch", fetching(ALL), BASE, {**BASE, ALL: comes("m1", "m2", "m3", deliveries=2)}, three, whole=False
    ),
    Story("takeover", fetching(ONE), HELD, {**BASE, ONE: comes("m1", "m2", deliveries=3)}, taken),
    Story("fetch in order", fetching_alone(ONE), BASE, {**BASE, ONE: comes("m1", "m2", deliveries=2)}, three),
    Story(
        "takeover in order",
        fetching_alone(ONE),
        HELD,
        {**BASE, ONE: comes("m1", "m2", deliveries=3)},
        taken_alone,
    ),
    Story(
        "delay in order",
        postponing,
        HELD,
        {**BASE, ONE: comes("m1", "m2", attempt=2, deliveries=3)},
        three,
    ),
    Story("extend", extending, HELD, HELD, three),
    Story("close", closing, HELD, HELD, three),
    Story(
        "ack of a batch",
        settling(ALL, lambda _: ACKED),
        {**BASE, ALL: comes("m1", "m2", "m3", deliveries=2)},
        {**BASE, ALL: {}},
        three,
        whole=False,
    ),
    Story(
        "ack with outputs",
        settling(ONE, outputs),
        HELD,
        {ONE: {}, ALL: comes("m1", "m2", "m3", "from-m1", "from-m2")},
        three,
    ),
    Story(
        "ack with outputs that may be there already",
        settling(ONE, same_output),
        HELD,
        {ONE: {}, ALL: comes("m1", "m2", "m3", "from-either")},
        three,
    ),
    Story(
        "delay",
        settling(ONE, lambda _: Delayed(SHORT)),
        HELD,
        {**BASE, ONE: comes("m1", "m2", attempt=2, deliveries=2)},
        three,
    ),
    Story("dead letter", settling(ONE, lambda delivery: Dead(letter(delivery))), HELD, DEAD, three),
    Story("release", settling(ONE, lambda _: RELEASED), HELD, BASE, three),
    Story("replay", replaying, DEAD, BASE, dead, overcounted=(ALL,)),
    Story("purge", purging, DEAD, {**BASE, ONE: {}}, dead),
    Story("drop", dropping, BASE, {ALL: BASE[ALL]}, three),
    Story("drop to begin anew", beginning_anew, DEAD, BASE, dead, between=({ALL: BASE[ALL]},)),
    Story("trim", trimming, LEFT, LEFT, settled),
)
