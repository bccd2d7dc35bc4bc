"""A server on a free port, for a memory backend and a token of each role."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from abe_router.backend import Backend, Dead, DeadLetter, Reason
from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.http.access import digest
from abe_router.http.http_server import HttpServer
from abe_router.http.sources import OwnSource
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import publish
from tests.limits import HANG

ROLES = ("viewer", "reader", "publisher", "operator", "admin")
#: A value that the schema marks as sensitive. No answer may contain it.
SECRET = "4929-1234-5678-9012"
SCHEMA = {
    "properties": {
        "total": {"minimum": 0},
        "card": {"type": "string", "maxLength": 30, "x-sensitive": True},
    }
}
ROUTES = """
backend: memory://
http:
  listen: 127.0.0.1:0
  probes: 127.0.0.1:0
  hosts: ["*.example.com", router.example.org]
  origins: https://ops.example.com
  tokens:
{tokens}
routes:
  orders.created:
    schema: order.json
    consumers: {{billing: "os:getcwd"}}
  payments.made:
    consumers: {{audit: "os:getcwd"}}
"""


def secret(role: str) -> str:
    """Return the token of a role."""
    return f"secret-token-of-the-{role}"


def routes_file(tokens: dict[str, str]) -> str:
    """Return a routes file with these tokens, as YAML."""
    lines = "\n".join(f"    {name}: {options}" for name, options in tokens.items())
    return ROUTES.format(tokens=lines)


def all_tokens() -> dict[str, str]:
    """Return a token for each role, and some that are limited to `orders.#`."""
    tokens = {role: f"{{sha256: {digest(secret(role))}, roles: {role}}}" for role in ROLES}
    for role in ("viewer", "publisher", "operator"):
        name = f"orders-{role}"
        tokens[name] = f'{{sha256: {digest(secret(name))}, roles: {role}, keys: "orders.#"}}'
    return tokens


@dataclass
class Serving:
    """A running server with its table, which a test may replace as an edit does, and its backend."""

    table: RouteTable
    backend: Backend
    server: HttpServer
    draining: bool = False

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{self.server.address}"


@asynccontextmanager
async def serving(folder: Path, text: str = "") -> AsyncIterator[Serving]:
    """Run a server for a routes file in a folder."""
    (folder / "schemas").mkdir(exist_ok=True)
    (folder / "schemas" / "order.json").write_text(json.dumps(SCHEMA))
    path = folder / "routes.yaml"
    path.write_text(text or routes_file(all_tokens()))
    table = Loader(path, import_handlers=False).load()
    async with make_backend("memory://") as backend:
        found: list[Serving] = []
        source = OwnSource(
            lambda: found[0].table if found else table,
            lambda: backend,
            started=lambda: True,
            draining=lambda: found[0].draining,
            counters=lambda: None,
        )
        async with HttpServer(source) as server:
            found.append(Serving(table, backend, server))
            yield found[0]


async def ask(served: Serving, role: str, method: str, path: str, **options: Any) -> httpx.Response:
    """Return the answer to a request with the token of a role, or without a token if it is empty."""
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {secret(role)}"} if role else {}
        return await client.request(method, path, headers=headers, **options)


async def add_dead_letter(serving: Serving, payload: object) -> str:
    """Make a message of `orders.created` a dead letter of `billing`, and return its id."""
    route = "orders.created", "billing"
    subscription = await serving.backend.subscribe(*route)
    await publish(serving.table, serving.backend, "orders.created", payload)
    (delivery,) = await subscription.fetch(1, HANG)
    reason = Reason("failed", "ValueError", f"the handler quotes {payload}", traceback=f"at {payload}")
    dead = Dead(DeadLetter("/".join(route), delivery.message, reason, 1, 1, 1e9, 1.1e9))
    await subscription.settle([(delivery, dead)])
    await subscription.close()
    return (await serving.backend.dead_letters(*route, limit=10))[-1].id


async def send_raw(serving: Serving, request: bytes, *, timeout: float = 5.0) -> bytes:
    """Send bytes to the server and return everything that it answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.server.address.port)
    try:
        writer.write(request)
        try:
            async with asyncio.timeout(timeout):
                return await reader.read()
        except ConnectionError:
            return b""
    finally:
        writer.close()
