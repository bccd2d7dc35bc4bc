"""The rate of NDJSON batches, and other requests meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from abe_router.backends import make_backend
from abe_router.operations.access import load_table

from .running import serving

ROOT = Path(__file__).parents[2]
#: Orders in a second; a machine in use by others may be several times slower.
RATE, SLOWER = 20_000, 5


@pytest.mark.alone
async def test_batches_of_orders_are_published_at_the_promised_rate(tmp_path: Path) -> None:
    orders = [
        json.dumps({"id": n + 1, "total": n * 1.37, "customer": f"customer-{n}@mail.shop.example.org"})
        for n in range(20_000)
    ]
    batches = ["\n".join(orders[start : start + 1000]).encode() for start in range(0, len(orders), 1000)]
    table = load_table(ROOT / "routes.yaml")
    async with serving(table, make_backend(f"sqlite:///{tmp_path}/shop.db")) as api:
        probes: list[float] = []

        async def probe() -> None:
            while True:
                began = time.perf_counter()
                await api.client.get("/livez")
                probes.append(time.perf_counter() - began)
                await asyncio.sleep(0.01)

        probing = asyncio.create_task(probe())
        began = time.perf_counter()
        for batch in batches:
            answer = await api.post("/v1/publish/orders.created", batch, "application/x-ndjson")
            assert answer.text.count('"id":') == 1000
        took = time.perf_counter() - began
        probing.cancel()
        (first,) = await api.source.backend.peek("orders.created", None, limit=1)
    assert first.message.payload["id"] == 1
    assert len(orders) / took > RATE / SLOWER
    assert sorted(probes)[len(probes) // 2] < 0.1


async def test_client_that_sends_slowly_delays_no_other(tmp_path: Path) -> None:
    table = load_table(ROOT / "routes.yaml")
    async with serving(table, make_backend("memory://")) as api:
        done = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b'{"id": 1, '
            await done.wait()
            yield b'"total": 5}\n'

        waiting = [
            asyncio.create_task(api.post("/v1/publish/orders.created", slow(), kind))
            for kind in ["application/json", "application/x-ndjson"] * 20
        ]
        await asyncio.sleep(0.05)
        answer = await api.post("/v1/publish/orders.created", b'{"id": 2, "total": 5}')
        assert answer.status_code == 202
        assert not any(task.done() for task in waiting)
        done.set()
        answers = await asyncio.gather(*waiting)
    assert {answer.status_code for answer in answers} == {202, 200}
