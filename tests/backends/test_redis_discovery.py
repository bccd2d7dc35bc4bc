"""Patterns go on finding keys, whatever happens to the server between two looks."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.redis import RedisBackend, discovery
from abe_router.backends.redis.discovery import Discovery
from abe_router.testing import RedisServer

from .hands import bodies, take

PATTERN, GROUP = "orders.#", "billing"


@pytest.fixture
def server(tmp_path):
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path, durable=True) as server:
        yield server


async def disconnected(backend):
    """Wait until both connections are seen to be gone."""
    while backend._session.line.up or backend._session._waker.up:
        await asyncio.sleep(0.01)


async def published_by_another(server, key):
    async with RedisBackend.from_url(server.url) as other:
        await other.publish(key, 1)


async def test_keys_are_found_after_a_look_that_met_no_server(server, monkeypatch, caplog):
    looks, look = asyncio.Event(), Discovery._look

    async def look_too_late(self):
        monkeypatch.setattr(Discovery, "_look", look)
        server.kill()
        looks.set()
        await look(self)

    monkeypatch.setattr(discovery, "INTERVAL", 0.05)
    monkeypatch.setattr(discovery, "_FRESH", 0.0)
    async with RedisBackend.from_url(server.url) as backend:
        handle = await backend.subscribe(PATTERN, GROUP)
        monkeypatch.setattr(Discovery, "_look", look_too_late)
        async with asyncio.timeout(10):
            await looks.wait()
            await disconnected(backend)
        server.start()
        await published_by_another(server, "orders.new")
        assert bodies(await take(handle, 1)) == [b"1"]
    assert "failed" not in caplog.text


async def test_keys_are_found_soon_after_an_outage_and_not_at_the_next_look(server):
    async with RedisBackend.from_url(server.url) as backend:
        handle = await backend.subscribe(PATTERN, GROUP)
        server.kill()
        await disconnected(backend)
        server.start()
        await published_by_another(server, "orders.new")
        async with asyncio.timeout(discovery.INTERVAL / 2):
            assert bodies(await take(handle, 1)) == [b"1"]
