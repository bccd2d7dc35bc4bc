"""A proxy in front of a Redis server that replaces, cuts, drops and inserts single answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self


class DamagingProxy:
    """Passes everything on to the server at `port`, but for the answers that `damages` names.

    A damage is the number of an answer, counted over all connections, the bytes, and what is done: `replace`
    sends the bytes in place of the answer, `insert` before it, `cut` closes the connection after half of the
    answer, and `drop` sends nothing.
    """

    def __init__(self, port: int, damages: Sequence[Any]) -> None:
        self._server_port = port
        self.damages = {int(number): (data, how) for number, data, how in damages}
        self._answers = 0
        self._connections: set[asyncio.Task[None]] = set()
        #: The port on which it listens, once it is entered.
        self.port = 0

    def damage_next(self, data: bytes, how: str) -> None:
        """Damage the next answer, whichever connection it is on."""
        self.damages[self._answers] = (data, how)

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, requests: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port, limit=2**24)
            passing = [
                asyncio.create_task(_pass_on(requests, writer)),
                asyncio.create_task(self._pass_answers(reader, answers)),
            ]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the client sees a connection that ended
        finally:
            self._connections.discard(connection)
            for each in (answers, writer):
                if each is not None:
                    each.transport.abort()

    async def _pass_answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while True:
            answer = await read_answer(source)
            data, how = self.damages.get(self._answers, (b"", ""))
            self._answers += 1
            if how == "cut":
                target.write(answer[: len(answer) // 2])
                await target.drain()
                return
            target.write({"replace": data, "insert": data + answer, "drop": b""}.get(how, answer))
            await target.drain()


async def read_answer(source: asyncio.StreamReader) -> bytes:
    """Return one whole answer of RESP version 2, as it was sent."""
    line = await source.readuntil(b"\r\n")
    size = int(line[1:-2]) if line[:1] in b"$*" else -1
    if line[:1] == b"$" and size >= 0:
        return line + await source.readexactly(size + 2)
    if line[:1] == b"*":
        return line + b"".join([await read_answer(source) for _ in range(size)])
    return line


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(65_536):
        target.write(chunk)
        await target.drain()
