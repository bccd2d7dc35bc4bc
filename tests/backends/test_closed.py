"""A backend that is closed under a consumer: the consumer neither spins nor ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing

import pytest

from abe_router.compat.consume import QueueBackend
from abe_router.compat.consumer import AsyncLoopConsumer


async def consume_in_a_loop(backend):
    async with aclosing(QueueBackend.consume(backend, group="g", key="a")) as stream:
        async for _ in stream:
            pass


async def handle(backend, **options):
    await AsyncLoopConsumer(backend, "g", key="a", **options).run(lambda _: None)


async def handle_in_order(backend):
    await handle(backend, order_by="/n")


@pytest.fixture
def backend(each_backend):
    return each_backend


@pytest.mark.parametrize("consume", [consume_in_a_loop, handle, handle_in_order])
async def test_consumer_of_a_closed_backend_does_not_spin(backend, consume, monkeypatch):
    subscribed, fetches = asyncio.Event(), Counter()

    def counted(subscribe):
        async def wrapped(*args, **options):
            handle = await subscribe(*args, **options)
            fetch = handle.fetch

            async def count_and_fetch(*args):
                fetches[backend.url] += 1
                if fetches[backend.url] > 100:
                    raise RuntimeError("the consumer spins")
                subscribed.set()
                return await fetch(*args)

            handle.fetch = count_and_fetch
            return handle

        return wrapped

    for name in ("subscribe", "subscribe_exclusive"):
        monkeypatch.setattr(backend, name, counted(getattr(backend, name)))
    consuming = asyncio.create_task(consume(backend))
    await subscribed.wait()
    await backend.close()
    before, began = fetches.total(), time.process_time()
    await asyncio.sleep(0.5)
    assert fetches.total() - before < 10
    assert time.process_time() - began < 0.4
    consuming.cancel()
    await asyncio.wait({consuming})
    assert consuming.cancelled() or consume is consume_in_a_loop  # that one has ended
