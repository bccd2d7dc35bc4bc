"""FastStream reads what abe-router writes, by the message format in docs/redis.md, and the reverse."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import take

redis = pytest.importorskip("faststream.redis")

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"
HANDLER = "async def report(order: dict): ..."
RECORDING = """
from faststream import Context

async def report(order: dict, message=Context("message")):
    received.put_nowait((order, message.headers))
"""


@pytest.fixture
def broker(redis_server, prefix):
    """Return the broker of the page and what its handler gets, on our server and stream."""
    (block,) = re.findall(r"```python\n(import json\n\nfrom faststream.*?)```", PAGE.read_text(), re.DOTALL)
    received = asyncio.Queue()
    for shown, ours in [
        ("redis://localhost:6379", redis_server.url),
        ('"orders.created"', f'"{prefix}orders.created"'),
    ]:
        assert shown in block
        block = block.replace(shown, ours)
    decorator, handler = block.index("@broker.subscriber"), block.index(HANDLER)
    block = block[:decorator] + RECORDING + block[decorator:handler].rstrip() + "(report)\n"
    names = {"received": received}
    exec(compile(block.replace("@broker", "broker"), str(PAGE), "exec"), names)
    return names["broker"], received


@pytest.mark.parametrize("headers", [{}, {"trace": "\u00e4"}], ids=["no headers", "headers"])
async def test_faststream_reads_our_messages_as_the_page_says(
    redis_backend, redis_client, prefix, broker, headers
):
    await redis_client.xgroup_create(f"{prefix}orders.created", "reports", 0, mkstream=True)
    await redis_backend.append([new_message("orders.created", b'{"total": 3}', headers=headers)])
    reader, received = broker
    async with reader:
        await reader.start()
        async with asyncio.timeout(HANG):
            order, shown = await received.get()
    assert order == {"total": 3}
    assert shown == {"content-type": "application/json", **headers}


async def test_we_read_what_faststream_publishes(redis_backend, redis_server, prefix):
    handle = await redis_backend.subscribe("orders.created", "billing")
    async with redis.RedisBroker(redis_server.url) as publisher:
        await publisher.publish(
            {"total": 3}, stream=f"{prefix}orders.created", headers={"trace": "t"}, correlation_id="c"
        )
    (delivery,) = await take(handle, 1)
    assert (delivery.message.payload, delivery.fault) == ({"total": 3}, "")
    assert {"trace": "t", "correlation_id": "c"}.items() <= delivery.message.headers.items()
