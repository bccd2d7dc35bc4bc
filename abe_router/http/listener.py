"""uvicorn inside another program: it handles no signals, and slow or many clients cost it little.

States of a connection: *waiting*, from its start and after each answer, until the head of a request is
complete; then *answering*. It is *known* once the guard has found the caller of its last request. Invariants:
at most `most_connections` are open; a waiting connection ends after `head_time`; an answering one ends when
the client takes nothing for `send_time`. When a new one needs a place, it ends the oldest one that is not
known, whatever that one sends, or else the oldest one that waits.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from abe_router.http.guard import CALLER
from abe_router.routing.http_options import ListenAddress

#: Most open connections of one listener.
MOST_CONNECTIONS = 512
#: Longest head of a request, in bytes.
MAX_HEAD = 16 * 1024
#: How long the head of a request may take, and how long a connection stays open between two, in seconds.
HEAD_TIME, KEEP_ALIVE = 10.0, 30
#: How long a client may take nothing of its answer, in seconds.
SEND_TIME = 30.0
#: How long the server waits for its answers at the end, in seconds.
CLOSE_TIME = 2
#: Connections that the system accepts before the server does.
BACKLOG = 1_024

# The guard reports what fails. The rest is about clients, which could fill the log.
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n"
)
#: What may end a line for one program and not for another: a line feed or a carriage return alone, and a line
#: that begins with a space, which once continued the line before it.
_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\n[ \t]")
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 24\r\n\r\n"
    b"The request is malformed"
)


class _StrictConnection(h11.Connection):
    """Refuses what a proxy before this server may read as other requests ("request smuggling").

    h11 itself accepts a bare line feed as the end of a line, and a length beside chunks. RFC 9112 permits
    both, and permits to refuse them.
    """

    def next_event(self) -> Any:
        """Return the next part of a request; raise h11.RemoteProtocolError if its head is ambiguous."""
        if self.their_state is h11.IDLE:
            received, _ = self.trailing_data
            head, end, _ = received.partition(b"\r\n\r\n")
            if _AMBIGUOUS.search(head + end):
                raise h11.RemoteProtocolError("a line of the head does not end with CR and LF")
        event = super().next_event()
        if isinstance(event, h11.Request):
            framing = {name for name, _ in event.headers} & {b"content-length", b"transfer-encoding"}
            if len(framing) > 1 or (b"transfer-encoding" in framing and event.http_version == b"1.0"):
                raise h11.RemoteProtocolError("the length of the body is ambiguous")
        return event


class HttpConnection(H11Protocol):
    """One connection, with a limit of the time that the head of a request takes."""

    most_connections = MOST_CONNECTIONS
    head_time = HEAD_TIME
    send_time = SEND_TIME
    _timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _is_open = False
    made_at = 0.0

    def __init__(self, config: uvicorn.Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.conn = _StrictConnection(h11.SERVER, MAX_HEAD)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many, and none of them gives way."""
        if len(self.connections) >= self.most_connections and not self._make_room():
            transport.write(_REFUSAL)
            transport.close()
            self.transport = transport
            return
        self._is_open = True
        super().connection_made(transport)
        self.made_at = self.loop.time()
        self._timer = self.loop.call_later(self.head_time, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._stop_timer()
        self._stop_send_timer()
        if self._is_open:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        if self._is_open:
            super().data_received(data)
            self._follow()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn passes it
        """Refuse what is no request, and end the connection; an answer that has begun ends with it."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_BAD_REQUEST)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._follow()

    def pause_writing(self) -> None:
        """Stop until the client has taken what was sent."""
        if self._is_open:
            super().pause_writing()
            self._watch_sending(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on."""
        if self._is_open:
            super().resume_writing()
            self._stop_send_timer()

    @property
    def is_waiting(self) -> bool:
        """Whether the head of the next request is not complete."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_known(self) -> bool:
        """Whether the last request had a valid token or session."""
        return self.scope is not None and self.scope.get(CALLER) is not None

    def _follow(self) -> None:
        """Keep the timer of the head while a head is awaited, but not between two requests."""
        if not self.is_waiting:
            self._stop_timer()
        elif self._timer is None and self.timeout_keep_alive_task is None:
            self._timer = self.loop.call_later(self.head_time, self.transport.abort)

    def _watch_sending(self, unsent: int) -> None:
        """End the connection if the client takes nothing of `unsent` bytes in time."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left >= unsent:
                self.transport.abort()
            else:
                self._watch_sending(left)

        self._send_timer = self.loop.call_later(self.send_time, look)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make_room(self) -> bool:
        """End the connection that gives way first; return whether there was one."""
        yielding = [
            (each.is_known, each.made_at, each)
            for each in self.connections
            if isinstance(each, HttpConnection) and (each.is_waiting or not each.is_known)
        ]
        if not yielding:
            return False
        _, _, first = min(yielding, key=lambda each: each[:2])
        self.connections.discard(first)
        first.transport.abort()
        return True


class _Server(uvicorn.Server):
    """A server that leaves the signals to the program."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: one SIGTERM would become two, and the second one ends the handlers at once."""
        yield


class Listener:
    """Serves one application on one address."""

    def __init__(
        self, application: Any, sock: socket.socket, *, closing: asyncio.Event | None = None
    ) -> None:
        config = uvicorn.Config(
            application,
            http=HttpConnection,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=CLOSE_TIME,
            backlog=BACKLOG,
        )
        self._server, self._socket, self._closing = _Server(config), sock, closing
        #: Where it listens, with the port that the system chose for port 0.
        self.address = ListenAddress(*sock.getsockname()[:2])
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when requests are answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http server")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server has ended")
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """End streams of events at once, complete the other answers, and end. Idempotent."""
        if self._closing is not None:
            self._closing.set()
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def bind(address: ListenAddress) -> socket.socket:
    """Return a socket that listens on an address; raise OSError if that fails.

    uvicorn would end the process if the address is in use.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, name = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host == "::" else 1)
        sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
