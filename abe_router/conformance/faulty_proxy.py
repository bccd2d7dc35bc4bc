"""A TCP proxy that loses replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Most bytes that are passed on at a time.
CHUNK = 65_536


class FaultyProxy:
    """Listens on a port of this host and passes everything on to a server, both ways.

    Before it passes a reply on it calls `cut`. When that returns True it closes the connection instead: the
    server has carried out the request, and the client does not know.
    """

    def __init__(self, host: str, port: int, cut: Callable[[], bool]) -> None:
        self._host, self._port, self._cut = host, port, cut
        self._connections: set[asyncio.Task[None]] = set()
        #: Where to connect to, once the `async with` block is entered.
        self.address = ("127.0.0.1", 0)
        #: How many replies were lost so far.
        self.lost = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, *self.address)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, requests: asyncio.StreamReader, replies: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        reader, writer = None, None
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            sending = asyncio.create_task(_pass_on(requests, writer))
            receiving = asyncio.create_task(self._pass_on_until_cut(reader, replies))
            try:
                await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                receiving.cancel()
                await asyncio.gather(sending, receiving, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the client sees a connection that was cut, as intended
        finally:
            self._connections.discard(connection)
            for each in (replies, writer):
                if each is not None:
                    each.transport.abort()

    async def _pass_on_until_cut(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK):
            if self._cut():
                self.lost += 1
                return
            target.write(chunk)
            await target.drain()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK):
        target.write(chunk)
        await target.drain()
