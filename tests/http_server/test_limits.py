"""Slow, many and silent clients: each costs the server little, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from abe_router.http import guard
from abe_router.http.access import Caller, Role, Token, digest
from abe_router.http.guard import Guard
from abe_router.http.listener import HttpConnection, Listener, bind
from abe_router.http.security import Security
from abe_router.routing.http_options import ListenAddress
from chaos.control import Control
from tests.limits import HANG

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
#: The head of a request for a stream of events, with a token.
KNOWN_STREAM = GET.replace(b"/ ", b"/events ") + b"Authorization: Bearer known\r\n\r\n"
TOKEN = Token(digest("known"), Caller("known", frozenset({Role.VIEWER})))
#: How much longer than usual the tests last, and how many connections they open.
LONGER = int(os.environ.get("ABE_ROUTER_LONGER", "1"))


async def small(_: Request) -> Response:
    return PlainTextResponse("ok")


async def large(_: Request) -> Response:
    return PlainTextResponse("x" * 20_000_000)


async def length(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@asynccontextmanager
async def listening(
    closing: asyncio.Event | None = None, security: Security | None = None
) -> AsyncIterator[Listener]:
    async def events(_: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            yield ": open\n\n"
            assert closing is not None
            await closing.wait()
            yield "event: closing\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    routes = [
        Route("/", small),
        Route("/livez", small),
        Route("/login", length, methods=["POST"]),
        Route("/large", large),
        Route("/length", length, methods=["POST"]),
        Route("/events", events),
    ]
    application = Starlette(routes=routes, middleware=[Middleware(Guard, security=security)])
    listener = Listener(application, bind(ListenAddress("127.0.0.1", 0)), closing=closing)
    await listener.start()
    try:
        yield listener
    finally:
        while Client.opened:
            Client.opened.pop().writer.close()
        await listener.stop()


class Client:
    """One connection. `listening` closes those that are open at its end."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, listener: Listener, sent: bytes = b"") -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", listener.address.port))
        client.writer.write(sent)
        cls.opened.append(client)
        return client

    async def rest(self) -> bytes:
        """Return all that the server sends until it ends the connection."""
        try:
            async with asyncio.timeout(HANG):
                return await self.reader.read()
        except ConnectionError:
            return b""


async def ask(listener: Listener, path: bytes = b"/") -> bytes:
    """Return the answer to one request on a connection of its own."""
    head = GET.replace(b"/ ", path + b" ", 1)
    client = await Client.open(listener, head + b"Connection: close\r\n\r\n")
    answer = await client.rest()
    client.writer.close()
    return answer


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpConnection, "head_time", 0.3)
    monkeypatch.setattr(guard, "BODY_TIME", 0.3)
    monkeypatch.setattr(HttpConnection, "send_time", 0.3)
    monkeypatch.setattr(guard, "DISCARD_TIME", 0.1)


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_is_not_complete_in_time_ends_the_connection(control: Control) -> None:
    async with listening() as listener:
        for sent in (b"", b"G", GET, GET + b"X-Slow: "):
            client = await Client.open(listener, sent)
            assert await client.rest() == b""
        client = await Client.open(listener, GET)
        began = time.time()
        with suppress(ConnectionError):  # a header now and then does not extend the time
            while time.time() < began + HANG:
                client.writer.write(b"X: 1\r\n")
                await client.writer.drain()
                await asyncio.sleep(0.05)
        assert control.since(began) < 9
        assert b"200" in await ask(listener)


@pytest.mark.usefixtures("hasty")
async def test_a_second_head_has_the_same_time() -> None:
    async with listening() as listener:
        client = await Client.open(listener, GET + b"\r\n")
        assert b"200" in await client.reader.readuntil(b"ok")
        client.writer.write(GET)
        assert await client.rest() == b""


@pytest.mark.usefixtures("hasty")
async def test_a_body_that_takes_too_long_is_refused() -> None:
    async with listening() as listener:
        head = b"POST /length HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n12345"
        client = await Client.open(listener, head)
        assert b" 408 " in await client.rest()


@pytest.mark.usefixtures("hasty")
async def test_a_client_that_takes_no_answer_is_dropped() -> None:
    async with listening() as listener:
        client = await Client.open(listener, GET.replace(b"/ ", b"/large ") + b"\r\n")
        await client.reader.readuntil(b"\r\n")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connections = listener._server.server_state.connections
        async with asyncio.timeout(HANG):
            while connections:
                await asyncio.sleep(0.02)
        assert b"200" in await ask(listener)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        GET,
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n12345",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "half of the chunks", "nothing after an answer"],
)
async def test_strangers_give_way_whatever_they_send(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(HttpConnection, "most_connections", 50)
    closing = asyncio.Event()
    async with listening(closing, Security([TOKEN])) as listener:
        streams = []
        for number in range(200 * LONGER):
            await Client.open(listener, sent)
            if number % 10 == 0:
                assert b" 200 " in await ask(listener, b"/livez")
                streams.append(await Client.open(listener, KNOWN_STREAM))
                await streams[-1].reader.readuntil(b": open\n\n")
            if len(streams) == 20:
                break
        connections = listener._server.server_state.connections
        assert len(connections) <= 50
        closing.set()
        async with asyncio.timeout(HANG):
            for stream in streams:
                await stream.reader.readuntil(b"event: closing\n\n")


async def test_connection_is_refused_while_known_clients_use_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpConnection, "most_connections", 20)
    closing = asyncio.Event()
    async with listening(closing, Security([TOKEN])) as listener:
        streams = [await Client.open(listener, KNOWN_STREAM) for _ in range(20)]
        for stream in streams:
            await stream.reader.readuntil(b": open\n\n")
        assert b" 503 " in await ask(listener, b"/livez")
        streams.pop().writer.close()
        async with asyncio.timeout(HANG):
            while b"200" not in await ask(listener, b"/livez"):
                await asyncio.sleep(0.02)


@pytest.mark.skipif(LONGER < 2, reason="opens 10,000 connections; set ABE_ROUTER_LONGER=2")
@pytest.mark.timeout(300)
async def test_ten_thousand_silent_connections_do_not_silence_the_server() -> None:
    async with listening() as listener:
        times = []
        for number in range(8_500):  # with both ends in this process, 20,000 files are open at most
            await Client.open(listener, GET)
            if number % 100 == 0:
                began = time.monotonic()
                assert b"200" in await ask(listener)
                times.append(time.monotonic() - began)
        print(f"the slowest answer took {max(times) * 1000:.1f} ms")
        assert max(times) < 1


async def test_streams_of_seven_tabs_work_and_end_at_once_with_the_server(control: Control) -> None:
    closing = asyncio.Event()
    async with listening(closing) as listener:
        request = GET.replace(b"/ ", b"/events ") + b"\r\n"
        tabs = [await Client.open(listener, request) for _ in range(7)]
        for tab in tabs:
            await tab.reader.readuntil(b": open\n\n")
        assert b"200" in await ask(listener)
        began = time.time()
        await listener.stop()
        assert control.since(began) < 1.5  # uvicorn alone would wait for ever
        for tab in tabs:
            assert b"event: closing" in await tab.rest()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with listening() as listener:
        client = await Client.open(listener, (GET + b"\r\n") * 20 + GET + b"Connection: close\r\n\r\n")
        assert (await client.rest()).count(b" 200 ") == 21
