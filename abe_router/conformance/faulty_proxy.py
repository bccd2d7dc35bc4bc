"""A line to a TCP server on which replies get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Largest piece passed on at a time, in bytes.
PIECE = 65_536


class BadLine:
    """Listens on a port of this host and passes everything on to a server, both ways.

    `cut` is asked before each reply is passed on; when it says so the connection is cut instead: the
    server has done what it was asked, and the client does not know.
    """

    def __init__(self, host: str, port: int, cut: Callable[[], bool]) -> None:
        self._host, self._port, self._cut = host, port, cut
        self._lines: set[asyncio.Task[None]] = set()
        #: Where to connect to, once it is entered.
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
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _connected(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        reply, ask = None, None
        try:
            reply, ask = await asyncio.open_connection(self._host, self._port)
            asking = asyncio.create_task(_pass_on(client, ask))
            answering = asyncio.create_task(self._pass_on_unless_cut(reply, answer))
            try:
                await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asking.cancel()
                answering.cancel()
                await asyncio.gather(asking, answering, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the client sees a connection that was cut, which is what the line is for
        finally:
            self._lines.discard(line)
            for writer in (answer, ask):
                if writer is not None:
                    writer.transport.abort()

    async def _pass_on_unless_cut(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(PIECE):
            if self._cut():
                self.lost += 1
                return
            target.write(piece)
            await target.drain()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE):
        target.write(piece)
        await target.drain()
