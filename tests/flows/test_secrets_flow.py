"""`serve` neither logs nor stores passwords, values of variables and sensitive members of payloads.

All bytes of a SQLite file, and all keys of a Redis server, are searched while the router runs. A body holds
what was published, so bodies are left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import zlib
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest
from redis.asyncio import Redis

from abe_router.backends import make_backend
from abe_router.messages.message import encode, new_message
from abe_router.runtime.edit_record import FILES
from abe_router.runtime.heartbeat import WORKERS, decode_reports
from abe_router.testing import RedisServer

PASSWORD, TOKEN, CARD, ANSWER = "P4SSWORDofall", "T0KENofall", "4111-C4RD", "5500-4NSWER"
ROUTES = """\
backend: {url}
schemas: schemas
routes:
  orders.created:
    schema: order.json
    consumers:
      billing:
        handler: shop:charge
        concurrency: 2
        retry: {{attempts: 1}}
        when: {{not: {{properties: {{token: {{const: "${{TOKEN}}"}}}}, required: [token]}}}}
        emit: orders.paid
  orders.paid: {{schema: order.json}}
"""
SCHEMA = {
    "properties": {
        "card": {"type": "string", "maxLength": 4, "x-sensitive": True},
        "total": {"type": "integer"},
    }
}
HANDLERS = f"""\
def charge(order):
    return {{"card": "{ANSWER}"}}
"""


def inflated(data: bytes) -> bytes:
    """Return the content of all compressed parts."""
    found = []
    for start in re.finditer(rb"x[\x01\x5e\x9c\xda]", data):
        try:
            found.append(zlib.decompressobj().decompress(data[start.start() :]))
        except zlib.error:
            continue
    return b"".join(found)


def file_bytes(folder: Path) -> bytes:
    """Return the bytes of the SQLite file and of its log."""
    return b"".join(path.read_bytes() for path in folder.glob("q.db*"))


async def redis_bytes(client: Redis) -> bytes:
    """Return names and values of all keys of a server."""
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1),
        b"stream": client.xrange,
    }
    found: list[bytes] = []

    def add(value: object) -> None:
        if isinstance(value, bytes):
            found.append(value)
        elif isinstance(value, dict):
            add(list(value.items()))
        elif isinstance(value, list | tuple | set):
            for each in value:
                add(each)

    async for name in client.scan_iter():
        kind = await client.type(name)
        add(name)
        add(await readers[kind](name))
        if kind == b"stream":
            add(await client.xinfo_groups(name))
    return b"\n".join(found)


@pytest.mark.parametrize("where", ["sqlite", "redis", "redis, literal"])
async def test_serve_logs_and_stores_no_secret(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/q.db"
    written = url
    if where != "sqlite":
        server = request.getfixturevalue("own_server")
        url = server.url.replace("//", f"//shop:{PASSWORD}@")
        written = url if "literal" in where else server.url.replace("//", "//shop:${PASSWORD}@")
    text = ROUTES.format(url=written)
    (tmp_path / "shop.py").write_text(HANDLERS)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "routes.yaml").write_text(text)
    bodies = [encode({"card": CARD, "total": 1}), encode({"token": TOKEN}), encode({"card": "1"})]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "abe_router", "serve", "--log-format", "json", "--log-level", "debug"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=tmp_path,
        env={**os.environ, "PASSWORD": PASSWORD, "TOKEN": TOKEN},
    )
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40), make_backend(url) as backend:
            await backend.append([new_message("orders.created", body) for body in bodies])
            while len(dead := await backend.dead_letters("orders.created", "billing")) < 2:
                await asyncio.sleep(0.05)
            edited = tmp_path / "edited.yaml"
            edited.write_text(text.replace("concurrency: 2", "concurrency: ${TOKEN}"))
            edited.rename(tmp_path / "routes.yaml")  # a write in place may be seen half-way
            rejected = ""
            while not rejected:
                await asyncio.sleep(0.05)
                reports = decode_reports(await backend.entries(WORKERS)).values()
                rejected = "".join(fault.message for report in reports for fault in report.rejected)
            while not await backend.entries(FILES):
                await asyncio.sleep(0.05)
        if where != "sqlite":
            async with Redis.from_url(url) as client:
                stored = await redis_bytes(client)
        else:
            stored = file_bytes(tmp_path)
    finally:
        process.terminate()
        out, log = await process.communicate()
    assert {each.reason.kind for each in dead} == {"invalid", "failed"}
    assert "${TOKEN}" in rejected
    assert b"dead" in log
    assert b"${TOKEN}" in inflated(stored)  # the files of the edit
    for body in bodies:
        assert body in stored
        stored = stored.replace(body, b"")
    for secret in (PASSWORD, TOKEN, CARD, ANSWER):
        for data in (stored, inflated(stored), out, log):
            assert secret.encode() not in data, secret


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory):
    """Yield a server with a user of its own."""
    user = ["--user", "shop", "on", f">{PASSWORD}", "~*", "+@all"]
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis"), options=user) as server:
        yield server
