"""Of each ordering key, nothing starts before the message before it has ended, whatever fails or stops."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from abe_router.backends.memory import MemoryBackend
from abe_router.consumer import Consumer
from abe_router.errors import Reject
from abe_router.observe.events import DeadLettered, Event, Events, Handled
from abe_router.routing.handler import handler_from
from abe_router.routing.policies import Batch, RetryPolicy
from abe_router.routing.route import Route
from tests.limits import HANG

GROUP = ("orders.created", "billing")
THREADS = ThreadPoolExecutor(1)

#: Of each message its value, how often it fails first, whether it is rejected in the end, and how many turns
#: of the loop an attempt takes.
messages = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans(), st.integers(0, 6)),
    min_size=1,
    max_size=25,
)
#: After how many attempts something happens, and what.
incidents = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["stop", "kill", "take away", "expire"])), max_size=5
)


class Shop:
    """Two consumers of one route; now and then one is replaced, or loses its ownership or its leases."""

    def __init__(self, planned, *, concurrency, batch) -> None:
        self.planned = planned
        self.backend = MemoryBackend()
        self.ended: dict[str, list[int]] = defaultdict(list)
        self.numbers: dict[str, list[int]] = defaultdict(list)
        self.failures: dict[int, int] = defaultdict(int)
        self.latest: dict[str, int] = defaultdict(int)
        self.wrong: list[str] = []
        self.attempts = 0
        self.changed = asyncio.Event()
        self.running: list[tuple[Consumer, asyncio.Task[None]]] = []
        self.route = Route(
            *GROUP,
            handler_from(self.charge_all if batch else self.charge),
            concurrency=concurrency,
            retry=RetryPolicy(attempts=4, initial=0.002, jitter=True),
            lease=5.0,
            order_by="/value",
            max_deliveries=1_000,
            batch=Batch(3, 0.001) if batch else None,
        )

    def record(self, event: Event) -> None:
        number = int(event.message_id)
        self.ended[self.planned[number][0]].append(number)
        self.changed.set()

    async def charge(self, payload):
        number, value = payload["number"], payload["value"]
        _, failures, rejected, turns = self.planned[number]
        self.attempts += 1
        self.changed.set()
        before = [each for each in self.numbers[value] if each < number]
        if missing := [each for each in before if each not in self.ended[value]]:
            self.wrong.append(f"{value}: {number} began before {missing} had ended")
        if number < self.latest[value]:
            self.wrong.append(f"{value}: {number} began after {self.latest[value]}")
        self.latest[value] = number
        for _ in range(turns):
            await asyncio.sleep(0)
        self.failures[number] += 1
        if self.failures[number] <= failures:
            raise ValueError("not yet")
        if rejected:
            raise Reject("never")

    async def charge_all(self, payloads):
        values = [payload["value"] for payload in payloads]
        if len(set(values)) < len(values):
            self.wrong.append(f"a batch holds {values}")
        return await asyncio.gather(*map(self.charge, payloads), return_exceptions=True)

    def start(self) -> None:
        events = Events([((Handled, DeadLettered), self.record)])
        consumer = Consumer(self.route, self.backend, events, revision="", threads=THREADS)
        consumer._prefetch.depth = 8  # as after a long time in which handlers kept up
        self.running.append((consumer, asyncio.create_task(consumer.run())))

    async def incident(self, what: str) -> None:
        (consumer, task), group = self.running[0], self.backend._queues.get(GROUP)
        if what in {"stop", "kill"}:
            del self.running[0]
            consumer.stop(1.0 if what == "stop" else 0.0)
            await task
            self.start()
        elif group is not None and what == "take away":
            group.owner = (
                group.owner[0],
                0.0,
            )  # as if it had given no sign of life for the length of its lease
            group.wake_all()
        elif group is not None:
            for entry in list(group._leased.values())[::2]:
                entry.claim += 1
                del group._leased[entry.seq]
                group._put_back(entry)

    async def run(self, incidents) -> None:
        for number, (value, *_) in enumerate(self.planned):
            self.numbers[value].append(number)
            payload = {"value": value, "number": number}
            await self.backend.publish(GROUP[0], payload, id=str(number))
        self.start()
        self.start()
        try:
            async with asyncio.timeout(HANG):
                for after, what in incidents:
                    await self.until(lambda target=self.attempts + after: self.attempts >= target)
                    await self.incident(what)
                await self.until(lambda: False)
        finally:
            for consumer, task in self.running:
                consumer.stop(0.0)
                await task

    async def until(self, reached) -> None:
        while not reached() and sum(map(len, self.ended.values())) < len(self.planned):
            self.changed.clear()
            await self.changed.wait()


@given(planned=messages, incidents=incidents, concurrency=st.integers(1, 4), batch=st.booleans())
@settings(max_examples=60)
def test_messages_of_one_ordering_key_do_not_overlap(planned, incidents, concurrency, batch):
    async def play() -> Shop:
        shop = Shop(planned, concurrency=concurrency, batch=batch)
        await shop.run(incidents)
        return shop

    shop = asyncio.run(play())
    assert not shop.wrong
    for value, numbers in shop.numbers.items():
        assert shop.ended[value] == numbers
