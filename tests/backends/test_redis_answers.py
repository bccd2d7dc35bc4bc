"""Answers that no Redis server gives: each operation ends with a documented error, and the next one works."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from abe_router.backend import ACKED
from abe_router.backends.redis import RedisBackend, protocol
from abe_router.errors import BackendUnavailable
from fuzz.resp import DamagingProxy
from tests.limits import HANG


@asynccontextmanager
async def proxied(redis_server, prefix):
    """Yield a proxy and an open backend behind it."""
    port = int(redis_server.url.rpartition(":")[2].partition("/")[0])
    async with DamagingProxy(port, []) as proxy, asyncio.timeout(HANG):
        url = f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=2"
        async with RedisBackend.from_url(url, prefix=prefix) as backend:
            yield proxy, backend


@pytest.mark.parametrize("answer", [b"*1\r\n:1\r\n", b":0\r\n", b"$1\r\na\r\n", b"*-1\r\n", b"*1\r\n*0\r\n"])
async def test_answer_of_another_form_is_an_error_of_its_operation_alone(redis_server, prefix, answer):
    async with proxied(redis_server, prefix) as (proxy, backend):
        handle = await backend.subscribe("answers", "g")
        for call in (backend.status, lambda: backend.entries("b"), lambda: backend.subscribe("answers", "g")):
            proxy.damage_next(answer, "replace")
            for _ in range(2):
                with suppress(BackendUnavailable):  # some forms have a meaning
                    await call()
                await asyncio.sleep(0)  # the end of a connection is noticed in the next turn
            await call()
        await backend.publish("answers", 1)
        (delivery,) = await handle.fetch(1, HANG)
        assert not await handle.settle([(delivery, ACKED)])


async def test_answer_to_no_command_ends_the_connection(redis_server, prefix, caplog):
    async with proxied(redis_server, prefix) as (proxy, backend):
        await backend.put("b", "n", b"1")
        proxy.damage_next(b"$-1\r\n", "insert")
        while "answer to no command" not in caplog.text:
            with suppress(BackendUnavailable):
                await backend.get("b", "n")
            await asyncio.sleep(0)
        entry = await backend.get("b", "n")
        assert entry is not None
        assert entry.value == b"1"
    assert "Fatal error" not in caplog.text


async def test_answer_that_never_ends_is_not_waited_for(redis_server, prefix, monkeypatch):
    monkeypatch.setattr(protocol, "_LONGEST_ANSWER", 0.1)
    async with proxied(redis_server, prefix) as (proxy, backend):
        proxy.damage_next(b"*1000000\r\n", "insert")
        with pytest.raises(BackendUnavailable, match="an answer takes longer than"):
            await asyncio.gather(*(backend.status() for _ in range(3)))
        assert isinstance(await backend.status(), list)
