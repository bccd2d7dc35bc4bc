"""Reads a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.limits import HANG

from .running import Api, bearer


@dataclass(frozen=True)
class Received:
    """One event: its name, its data and its id."""

    name: str
    data: Any
    id: str = ""


class Events:
    """The events of one open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self._lines = response.aiter_lines()

    async def next(self) -> Received | None:
        """Return the next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(HANG):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    return Received(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
        return None


@asynccontextmanager
async def watching(
    api: Api, path: str, *, token: str = "admin", after: str | None = None
) -> AsyncIterator[Events]:
    headers = bearer(token) | ({} if after is None else {"Last-Event-ID": after})
    async with (
        httpx.AsyncClient(
            base_url=f"http://{api.address}", trust_env=False, verify=False, timeout=30
        ) as client,
        client.stream("GET", path, headers=headers) as response,
    ):
        yield Events(response)
