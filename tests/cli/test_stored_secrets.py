"""Values of variables, passwords and sensitive values are in nothing that `serve` logs or stores.

A message is stored as it was published; everything else that a backend has is searched.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import redis

from abe_router.messages.message import new_message
from abe_router.testing import RedisServer
from tests.limits import HANG

from .conftest import ORDER, on_backend

#: The value of a variable, the password of the backend, and a value that the schema marks as sensitive.
VALUE, PASSWORD, CARD = b"xyzzyHunter2Plugh", b"S3CRETPASSWORD", b"SENSITIVE-4111"
ROUTES = """\
backend: %s
schemas: schemas
routes:
  orders.created:
    schema: order.json
    consumers:
      billing:
        handler: shop_handlers:charge
        when: {not: {properties: {tag: {const: '${VAR}'}}, required: [tag]}}
"""
SCHEMA = {
    **ORDER,
    "properties": {**ORDER["properties"], "card": {"type": "string", "maxLength": 4, "x-sensitive": True}},
}
FAULTY = ROUTES + "        concurrency: '${VAR}'\n"


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, shop: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{shop}/shop.db"
        return
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(shop) as server:
        port = urlsplit(server.url).port
        redis.Redis(port=port).config_set("requirepass", PASSWORD.decode())
        yield f"redis://:{PASSWORD.decode()}@127.0.0.1:{port}/0"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, Path("log").read_text()
        time.sleep(0.05)


def until_logged(words: bytes) -> None:
    until(lambda: words in Path("log").read_bytes())


def served(text: str) -> bytes:
    """Return the log of `serve -v` until a dead letter and an edit are stored and another is rejected."""
    Path("routes.yaml").write_text(text)
    url = text.split()[1]
    command = [sys.executable, "-m", "abe_router", "serve", "-v", "--log-format", "text"]
    environment = {**os.environ, "VAR": VALUE.decode()}
    with (
        Path("log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as worker,
    ):
        try:
            until_logged(b"dead letter")
            until(lambda: any(b"const: '${VAR}'" in readable(value) for _, value in stored(url)))
            Path("routes.yaml").write_text(FAULTY % url)
            until_logged(b"edit rejected")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(HANG) == 0
        finally:
            worker.kill()
    return Path("log").read_bytes()


def stored(url: str) -> Iterator[tuple[str, bytes]]:
    """Yield everything that a backend has, with the name of the column or field."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect("shop.db")) as database:
            for (table,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall():
                rows = database.execute(f"SELECT * FROM {table}")
                names = [column[0] for column in rows.description]
                for row in rows:
                    for name, value in zip(names, row, strict=True):
                        yield f"{table}.{name}", value if isinstance(value, bytes) else str(value).encode()
        return
    client = redis.Redis.from_url(url)
    for key in client.scan_iter():
        yield "key", key
        match client.type(key):
            case b"stream":
                for _, fields in client.xrange(key):
                    yield from ((f"stream.{name.decode()}", value) for name, value in fields.items())
            case b"hash":
                yield from (("hash", part) for item in client.hgetall(key).items() for part in item)
            case b"zset":
                yield from (("zset", member) for member in client.zrange(key, 0, -1))
            case b"set":
                yield from (("set", member) for member in client.smembers(key))
            case b"list":
                yield from (("list", member) for member in client.lrange(key, 0, -1))
            case _:
                yield "string", client.get(key)


def readable(value: bytes) -> bytes:
    """Return a value, and what it is when it is not compressed."""
    found = value
    for at in range(len(value) - 1):
        if value[at] == 0x78:  # each stream of zlib begins so
            try:
                found += zlib.decompressobj().decompress(value[at:])
            except zlib.error:
                continue
    return found


def test_serve_logs_and_stores_no_secret(shop: Path, url: str) -> None:
    (shop / "schemas" / "order.json").write_bytes(msgspec.json.encode(SCHEMA))
    order = b'{"id": 1, "total": 1, "card": "%s"}' % CARD
    on_backend(lambda backend: backend.append([new_message("orders.created", order)]), url)
    on_backend(lambda backend: backend.subscribe("orders.created", "billing"), url)
    log = served(ROUTES % url)
    assert b"maxLength" in log
    assert [secret for secret in (VALUE, PASSWORD, CARD) if secret.lower() in log.lower()] == []
    rows = [(name, readable(value)) for name, value in stored(url)]
    assert any(b"maxLength: expected at most" in value and b'"route"' in value for _, value in rows)
    assert any(b"const: '${VAR}'" in value for _, value in rows)  # the files of the edit
    for secret in (VALUE, PASSWORD, CARD):
        found = {name for name, value in rows if secret.lower() in value.lower()}
        assert found <= ({"messages.body", "stream.data"} if secret == CARD else set())
