"""The scenarios: each transition of a backend, with the state before it and after it."""

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

from .snapshot import DeadLettered, Name, Pending, Snapshot, State, Stored

#: A subscription of one key, and one that sees every key.
ONE, ALL = ("a.b", "billing"), ("a.*", "audit")
#: A bucket of the key-value store.
BUCKET = "workers"
#: Leases and delays, in seconds: each must be over before a snapshot is taken.
SHORT = 0.25
#: A deduplication window, in seconds, that does not end in a scenario; some put the clock forward by hours.
WINDOW = 86_400.0

Handle = TypeVar("Handle", bound=Subscription)
#: Called where the steps begin that are cut.
Begin = Callable[[], None]


#: Runs a transition on a backend.
Run = Callable[[Backend, Begin], Awaitable[object]]


@dataclass(frozen=True)
class Scenario:
    """A transition that runs on a backend after `prepare`.

    After a cut the state is `before`, one of those `between`, or `after`. If it is not `atomic`, that holds
    for each message by itself where a backend takes several steps. Of the messages in `order` the first few
    are there. After another run the state is `after`, with the messages that `may_repeat` once or twice. The
    counts of subscriptions that `may_overcount` may include messages of other subscriptions.
    """

    name: str
    run: Run
    before: Snapshot
    after: Snapshot
    prepare: Callable[[Backend], Awaitable[object]]
    atomic: bool = True
    between: Sequence[Snapshot] = ()
    order: Sequence[str] = ()
    may_repeat: Collection[str] = ()
    may_overcount: Collection[Name] = ()
    buckets: Collection[str] = ()


def message(id: str, key: str = "a.b") -> Message:
    """Return a message of that id."""
    return Message(id, key, b"1", {}, 1.0, 1)


def pending(*ids: str, attempt: int = 1, deliveries: int = 1) -> dict[str, State]:
    """Return the state of messages that are delivered."""
    return dict.fromkeys(ids, Pending(attempt, deliveries))


def begin_nothing() -> None:
    """Cut no step."""


async def hold(
    backend: Backend, name: Name, begin: Begin = begin_nothing
) -> tuple[Subscription, list[Delivery]]:
    """Return a handle that holds all messages; `begin` is called before it fetches."""
    return await held_by(backend, await backend.subscribe(*name, lease=SHORT), begin)


async def hold_exclusively(
    backend: Backend, name: Name, begin: Begin = begin_nothing
) -> tuple[ExclusiveSubscription, list[Delivery]]:
    """Return an exclusive handle that holds all messages; `begin` is called before it fetches."""
    return await held_by(backend, await backend.subscribe_exclusive(*name, lease=SHORT), begin)


async def held_by(backend: Backend, handle: Handle, begin: Begin) -> tuple[Handle, list[Delivery]]:
    """Let the handle fetch all messages."""
    name = handle.pattern, handle.group
    counts = next(s for s in await backend.status() if (s.pattern, s.group) == name)
    # Not until a fetch is empty: by then a lease may be over, and its message comes again.
    expected, held = counts.ready + counts.in_flight + counts.delayed, list[Delivery]()
    begin()
    while len(held) < expected:
        held += await handle.fetch(100, 1.0)
    return handle, held


async def held_exclusively_before(backend: Backend) -> None:
    """Publish three; an exclusive handle that is gone held both of one subscription."""
    await three(backend)
    await hold_exclusively(backend, ONE)
    await asyncio.sleep(SHORT)


def dead_letter(delivery: Delivery) -> DeadLetter:
    """Return the dead letter of a delivery."""
    reason = Reason("failed", "ValueError", "no stock")
    m = delivery.message
    return DeadLetter("a.b/billing", m, reason, m.attempt, delivery.deliveries, 1.0, 2.0)


async def three(backend: Backend) -> None:
    """Publish two messages for both subscriptions, and one for ALL."""
    for name in (ONE, ALL):
        await backend.subscribe(*name)
    await backend.append([message("m1"), message("m2"), message("m3", "a.c")])


async def three_before_now(backend: Backend) -> None:
    """Wait for the end of the millisecond: a subscription may begin at a whole millisecond."""
    await three(backend)
    await asyncio.sleep(0.002)


async def dead(backend: Backend) -> None:
    """Publish three; both of one subscription are dead letters."""
    await three(backend)
    handle, held = await hold(backend, ONE)
    assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in held])


async def settled(backend: Backend) -> None:
    """Publish three that are settled, and one more that is not."""
    await three(backend)
    for name in (ONE, ALL):
        handle, held = await hold(backend, name)
        assert not await handle.settle([(delivery, ACKED) for delivery in held])
    await backend.append([message("m4")])


async def held_before(backend: Backend) -> None:
    """Publish three; a handle that is gone held both of one subscription."""
    await three(backend)
    await hold(backend, ONE)
    await asyncio.sleep(SHORT)


async def nothing(backend: Backend) -> None:
    """Prepare nothing."""


def appending(*messages: Message) -> Run:
    async def run(backend: Backend, begin: Begin) -> None:
        await backend.open()
        begin()
        await backend.append(messages)

    return run


def appending_once(*messages: Message) -> Run:
    async def run(backend: Backend, begin: Begin) -> None:
        await backend.open()
        begin()
        await backend.append_once([(message, WINDOW) for message in messages])

    return run


def settling(name: Name, outcome: Callable[[Delivery], Outcome]) -> Run:
    async def run(backend: Backend, begin: Begin) -> None:
        handle, held = await hold(backend, name)
        begin()
        first = [delivery for delivery in held if delivery.message.attempt == 1]
        assert not await handle.settle([(delivery, outcome(delivery)) for delivery in first])

    return run


def subscribing(start: float) -> Run:
    async def run(backend: Backend, begin: Begin) -> None:
        await backend.open()
        begin()
        await backend.subscribe("a.*", "late", start=start)

    return run


async def subscribing_first(backend: Backend, begin: Begin) -> None:
    begin()
    await backend.subscribe(*ONE)


def fetching(name: Name) -> Run:
    return lambda backend, begin: hold(backend, name, begin)


def fetching_exclusively(name: Name) -> Run:
    return lambda backend, begin: hold_exclusively(backend, name, begin)


async def postponing(backend: Backend, begin: Begin) -> None:
    handle, held = await hold_exclusively(backend, ONE)
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
    ids = [each.id for each in await backend.dead_letters(*ONE)]
    begin()
    assert await backend.replay(*ONE, ids) == len(ids)


async def purging(backend: Backend, begin: Begin) -> None:
    ids = [each.id for each in await backend.dead_letters(*ONE)]
    begin()
    assert await backend.purge(*ONE, ids) == len(ids)


async def dropping(backend: Backend, begin: Begin) -> None:
    await backend.open()
    begin()
    await backend.drop(*ONE)


async def dropping_and_subscribing(backend: Backend, begin: Begin) -> None:
    await dropping(backend, begin)
    await backend.subscribe(*ONE)


async def entries(backend: Backend) -> None:
    """Put two entries."""
    for name in ("w1", "w2"):
        await backend.put(BUCKET, name, b"1")


async def putting(backend: Backend, begin: Begin) -> None:
    await backend.open()
    begin()
    assert await backend.put(BUCKET, "w1", b"2")


async def comparing_and_putting(backend: Backend, begin: Begin) -> None:
    entry = await backend.get(BUCKET, "w1")
    begin()
    assert entry
    assert await backend.put(BUCKET, "w1", b"2", expected=entry.revision)


async def deleting(backend: Backend, begin: Begin) -> None:
    await backend.open()
    begin()
    await backend.delete(BUCKET, "w1")


async def trimming(backend: Backend, begin: Begin) -> None:
    await backend.open()
    begin()
    while await backend.trim({}):
        pass


BASE: Snapshot = {ONE: pending("m1", "m2"), ALL: pending("m1", "m2", "m3")}
HELD: Snapshot = {**BASE, ONE: pending("m1", "m2", deliveries=2)}
DEAD: Snapshot = {**BASE, ONE: {"m1": DeadLettered(), "m2": DeadLettered()}}
LEFT: Snapshot = {ONE: pending("m4"), ALL: pending("m4")}
ENTRIES: Snapshot = {("bucket", BUCKET): {"w1": Stored(b"1"), "w2": Stored(b"1")}}
PUT: Snapshot = {("bucket", BUCKET): {"w1": Stored(b"2"), "w2": Stored(b"1")}}
DELETED: Snapshot = {("bucket", BUCKET): {"w2": Stored(b"1")}}
MANY = [f"n{n}" for n in range(1, 101)]


def outputs(delivery: Delivery) -> Outcome:
    return Acked((message(f"from-{delivery.message.id}", "a.c"),))


def same_output(_: Delivery) -> Outcome:
    return Acked((message("from-either", "a.c"),), WINDOW)


SCENARIOS = (
    Scenario(
        "append of several keys",
        appending(message("n1"), message("n2", "a.c"), message("n3")),
        BASE,
        {ONE: pending("m1", "m2", "n1", "n3"), ALL: pending("m1", "m2", "m3", "n1", "n2", "n3")},
        three,
        may_repeat=("n1", "n2", "n3"),
    ),
    Scenario(
        "append of several batches",
        appending(*map(message, MANY)),
        {ONE: {}},
        {ONE: pending(*MANY)},
        lambda backend: backend.subscribe(*ONE),
        atomic=False,
        order=MANY,
        may_repeat=MANY,
    ),
    Scenario(
        "append of a new key",
        appending(message("n1", "a.new")),
        BASE,
        {**BASE, ALL: pending("m1", "m2", "m3", "n1")},
        three,
        may_repeat=("n1",),
    ),
    Scenario(
        "append once",
        appending_once(message("n1"), message("n2"), message("n1")),
        BASE,
        {ONE: pending("m1", "m2", "n1", "n2"), ALL: pending("m1", "m2", "m3", "n1", "n2")},
        three,
    ),
    Scenario(
        "append once of several keys",
        appending_once(message("n1"), message("n2", "a.c"), message("n3")),
        BASE,
        {ONE: pending("m1", "m2", "n1", "n3"), ALL: pending("m1", "m2", "m3", "n1", "n2", "n3")},
        three,
        atomic=False,
    ),
    Scenario("first use", subscribing_first, {}, {ONE: {}}, nothing),
    Scenario(
        "subscribe from the beginning", subscribing(0.0), BASE, {**BASE, ("a.*", "late"): BASE[ALL]}, three
    ),
    Scenario(
        "subscribe from now on",
        subscribing(math.inf),
        BASE,
        {**BASE, ("a.*", "late"): {}},
        three_before_now,
    ),
    Scenario(
        "fetch",
        fetching(ALL),
        BASE,
        {**BASE, ALL: pending("m1", "m2", "m3", deliveries=2)},
        three,
        atomic=False,
    ),
    Scenario("takeover", fetching(ONE), HELD, {**BASE, ONE: pending("m1", "m2", deliveries=3)}, held_before),
    Scenario(
        "fetch in order",
        fetching_exclusively(ONE),
        BASE,
        {**BASE, ONE: pending("m1", "m2", deliveries=2)},
        three,
    ),
    Scenario(
        "takeover in order",
        fetching_exclusively(ONE),
        HELD,
        {**BASE, ONE: pending("m1", "m2", deliveries=3)},
        held_exclusively_before,
    ),
    Scenario(
        "delay in order",
        postponing,
        HELD,
        {**BASE, ONE: pending("m1", "m2", attempt=2, deliveries=3)},
        three,
    ),
    Scenario("extend", extending, HELD, HELD, three),
    Scenario("close", closing, HELD, HELD, three),
    Scenario(
        "ack of a batch",
        settling(ALL, lambda _: ACKED),
        {**BASE, ALL: pending("m1", "m2", "m3", deliveries=2)},
        {**BASE, ALL: {}},
        three,
        atomic=False,
    ),
    Scenario(
        "ack with outputs",
        settling(ONE, outputs),
        HELD,
        {ONE: {}, ALL: pending("m1", "m2", "m3", "from-m1", "from-m2")},
        three,
    ),
    Scenario(
        "ack with outputs that may be there already",
        settling(ONE, same_output),
        HELD,
        {ONE: {}, ALL: pending("m1", "m2", "m3", "from-either")},
        three,
    ),
    Scenario(
        "delay",
        settling(ONE, lambda _: Delayed(SHORT)),
        HELD,
        {**BASE, ONE: pending("m1", "m2", attempt=2, deliveries=2)},
        three,
    ),
    Scenario("dead letter", settling(ONE, lambda delivery: Dead(dead_letter(delivery))), HELD, DEAD, three),
    Scenario("release", settling(ONE, lambda _: RELEASED), HELD, BASE, three),
    Scenario("replay", replaying, DEAD, BASE, dead, may_overcount=(ALL,)),
    Scenario("purge", purging, DEAD, {**BASE, ONE: {}}, dead),
    Scenario("drop", dropping, BASE, {ALL: BASE[ALL]}, three),
    Scenario(
        "drop and subscribe again", dropping_and_subscribing, DEAD, BASE, dead, between=({ALL: BASE[ALL]},)
    ),
    Scenario("trim", trimming, LEFT, LEFT, settled),
    Scenario("put", putting, ENTRIES, PUT, entries, buckets=(BUCKET,)),
    Scenario("compare and put", comparing_and_putting, ENTRIES, PUT, entries, buckets=(BUCKET,)),
    Scenario("delete", deleting, ENTRIES, DELETED, entries, buckets=(BUCKET,)),
)
