"""A TCP proxy on this machine that injects network faults."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards connections to `target`, a port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        #: Delay of each piece in either direction, in seconds, and the largest piece in bytes.
        self.delay, self.piece = 0.0, 65536
        #: Whether new connections are accepted.
        self.open = True
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*(link.ended for link in tuple(self._links)), return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections."""
        for link in tuple(self._links):
            link.cut()

    def swallow(self) -> None:
        """Keep all current connections open, but drop their bytes in both directions."""
        for link in self._links:
            link.carries_requests = link.carries_replies = False

    def mute(self) -> None:
        """Forward the requests of all current connections, but drop their replies."""
        for link in self._links:
            link.carries_replies = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), (far_reader, far_writer))
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: Side, far: Side) -> None:
        self._proxy, self._near, self._far = proxy, near, far
        self.carries_requests = self.carries_replies = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def cut(self) -> None:
        """Reset both ends."""
        for _, writer in (self._near, self._far):
            writer.transport.abort()

    async def run(self) -> None:
        """Forward until either side ends."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(self._near[0], self._far[1], requests=True))
                both.create_task(self._carry(self._far[0], self._near[1], requests=False))
        except* OSError:
            pass  # one side was reset
        finally:
            self.cut()
            self.ended.set_result(None)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        # After a reset, the reader still has buffered bytes; the other side no longer takes them.
        while (data := await reader.read(self._proxy.piece)) and not writer.is_closing():
            if self._proxy.delay:
                await asyncio.sleep(self._proxy.delay)
            if self.carries_requests if requests else self.carries_replies:
                writer.write(data)
                with suppress(ConnectionError):
                    await writer.drain()
        self.cut()
