"""Whatever fails, stops or is taken away: of each value, nothing starts before the one before it is over."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from abe_router.routing.policies import Batch, RetryPolicy
from hypothesis import given, settings
from hypothesis import strategies as st

from abe_router.backends.memory import MemoryBackend
from abe_router.consumer import Consumer
from abe_router.errors import Reject
from abe_router.observe.events import DeadLettered, Event, Events, Handled
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route

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
mishaps = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["stop", "kill", "take away", "expire"])), max_size=5
)


class Shop:
    """Two consumers of one route, of which now and then one goes and another comes, or loses its place."""

    def __init__(self, planned, *, concurrency, batch) -> None:
        self.planned = planned
        self.backend = MemoryBackend()
        self.ended: dict[str, list[int]] = defaultdict(list)
        self.numbers: dict[str, list[int]] = defaultdict(list)
        self.failures: dict[int, int] = defaultdict(int)
        self.latest: dict[str, int] = defaultdict(int)
        self.wrong: list[str] = []
        self.attempts = 0
        self.news = asyncio.Event()
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

    def heard(self, event: Event) -> None:
        number = int(event.message_id)
        self.ended[self.planned[number][0]].append(number)
        self.news.set()

    async def charge(self, payload):
        number, value = payload["number"], payload["value"]
        _, failures, rejected, turns = self.planned[number]
        self.attempts += 1
        self.news.set()
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
        events = Events([((Handled, DeadLettered), self.heard)])
        consumer = Consumer(self.route, self.backend, events, revision="", threads=THREADS)
        consumer._lookahead.depth = 8  # as if the handlers had kept up for long
        self.running.append((consumer, asyncio.create_task(consumer.run())))

    async def mishap(self, what: str) -> None:
        (consumer, task), group = self.running[0], self.backend._groups.get(GROUP)
        if what in {"stop", "kill"}:
            del self.running[0]
            consumer.stop(1.0 if what == "stop" else 0.0)
            await task
            self.start()
        elif group is not None and what == "take away":
            group.place = (
                group.place[0],
                0.0,
            )  # as if it had given no sign of life for the length of its lease
            group.wake()
        elif group is not None:
            for entry in list(group._leased.values())[::2]:
                entry.claim += 1
                del group._leased[entry.seq]
                group._put_back(entry)

    async def run(self, mishaps) -> None:
        for number, (value, *_) in enumerate(self.planned):
            self.numbers[value].append(number)
            payload = {"value": value, "number": number}
            await self.backend.publish(GROUP[0], payload, id=str(number))
        self.start()
        self.start()
        try:
            async with asyncio.timeout(5):
                for after, what in mishaps:
                    await self.until(lambda target=self.attempts + after: self.attempts >= target)
                    await self.mishap(what)
                await self.until(lambda: False)
        finally:
            for consumer, task in self.running:
                consumer.stop(0.0)
                await task

    async def until(self, reached) -> None:
        while not reached() and sum(map(len, self.ended.values())) < len(self.planned):
            self.news.clear()
            await self.news.wait()


@given(planned=messages, mishaps=mishaps, concurrency=st.integers(1, 4), batch=st.booleans())
@settings(max_examples=60)
def test_nothing_starts_before_the_one_before_it_is_over(planned, mishaps, concurrency, batch):
    async def play() -> Shop:
        shop = Shop(planned, concurrency=concurrency, batch=batch)
        await shop.run(mishaps)
        return shop

    shop = asyncio.run(play())
    assert not shop.wrong
    for value, numbers in shop.numbers.items():
        assert shop.ended[value] == numbers
