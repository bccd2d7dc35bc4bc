"""A server of the API on a free port, over a table and a backend in this process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from abe_router.backend import Backend
from abe_router.http.access import Caller, Role, Token, digest
from abe_router.http.app import make_app
from abe_router.http.listener import Listener, bind
from abe_router.http.security import Security
from abe_router.http.site import Counters, Readiness, Site
from abe_router.routing.http_options import ListenAddress
from abe_router.routing.table import RouteTable


@dataclass
class FixedSource:
    """A source whose parts a test sets."""

    table: RouteTable
    backend: Backend
    readiness: Readiness = field(default_factory=lambda: Readiness(started=True))
    counters: Counters | None = None


@dataclass(frozen=True)
class Api:
    """A running server. `client` is that of an admin; `get` and `post` may name another token."""

    source: FixedSource
    site: Site
    client: httpx.AsyncClient
    address: ListenAddress

    async def get(self, path: str, *, token: str = "admin", **options: Any) -> httpx.Response:
        return await self.client.get(path, headers=bearer(token), **options)

    async def post(
        self,
        path: str,
        body: Any = b"",
        kind: str = "application/json",
        *,
        token: str = "admin",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"Content-Type": kind, **bearer(token), **(headers or {})}
        return await self.client.post(path, content=body, headers=sent)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def serving(
    table: RouteTable, backend: Backend, callers: Mapping[str, Caller] | None = None
) -> AsyncIterator[Api]:
    """Run a server; the token of a caller is its name, and `admin` may do everything."""
    known = {"admin": Caller("admin", frozenset({Role.ADMIN})), **(callers or {})}
    site = Site(
        source := FixedSource(table, backend),
        Security([Token(digest(name), caller) for name, caller in known.items()]),
    )
    listening = bind(ListenAddress("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # a full one is noticed
    listener = Listener(make_app(site), listening, closing=site.closing)
    async with backend:
        await listener.start()
        try:
            async with httpx.AsyncClient(
                base_url=f"http://{listener.address}", trust_env=False, verify=False
            ) as client:
                yield Api(source, site, client, listener.address)
        finally:
            await listener.stop()
