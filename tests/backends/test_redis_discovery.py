"""Patterns keep finding keys, whatever happens to the server between two scans."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.redis import RedisBackend, discovery
from abe_router.backends.redis.discovery import Discovery
from abe_router.testing import RedisServer
from tests.limits import HANG

from .deliveries import bodies, take

PATTERN, GROUP = "orders.#", "billing"


@pytest.fixture
def server(tmp_path):
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path, durable=True) as server:
        yield server


async def disconnected(backend):
    """Wait until both connections have noticed the loss."""
    while backend._node.connection.up or backend._node.notifier.up:
        await asyncio.sleep(0.01)


async def published_by_another(server, key):
    async with RedisBackend.from_url(server.url) as other:
        await other.publish(key, 1)


async def test_keys_are_found_after_a_scan_without_a_server(server, monkeypatch, caplog):
    scanned, scan = asyncio.Event(), Discovery._scan

    async def scan_too_late(self):
        monkeypatch.setattr(Discovery, "_scan", scan)
        server.kill()
        scanned.set()
        await scan(self)

    monkeypatch.setattr(discovery, "INTERVAL", 0.05)
    monkeypatch.setattr(discovery, "_SCAN_FACTOR", 0.0)  # however long a scan takes
    monkeypatch.setattr(discovery, "_FRESH", 0.0)
    async with RedisBackend.from_url(server.url) as backend:
        handle = await backend.subscribe(PATTERN, GROUP)
        monkeypatch.setattr(Discovery, "_scan", scan_too_late)
        async with asyncio.timeout(HANG):
            await scanned.wait()
            await disconnected(backend)
        server.start()
        await published_by_another(server, "orders.new")
        assert bodies(await take(handle, 1)) == [b"1"]
    assert "failed" not in caplog.text


async def test_keys_are_found_soon_after_an_outage_without_waiting_for_the_next_scan(server, monkeypatch):
    monkeypatch.setattr(discovery, "INTERVAL", 3600.0)
    async with RedisBackend.from_url(server.url) as backend:
        handle = await backend.subscribe(PATTERN, GROUP)
        server.kill()
        await disconnected(backend)
        server.start()
        await published_by_another(server, "orders.new")
        async with asyncio.timeout(discovery.INTERVAL / 2):
            assert bodies(await take(handle, 1)) == [b"1"]
