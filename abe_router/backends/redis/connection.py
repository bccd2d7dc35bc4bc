"""A connection to Redis that reconnects: one protocol at a time, a new one when the last one broke.

It repeats nothing. What was sent and not answered when a connection breaks fails with BackendUnavailable,
because only the caller knows whether it may be sent again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from abe_router.backends.redis.address import Address
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.protocol import Arg, RedisProtocol, ServerError
from abe_router.backends.redis.scripts import Script
from abe_router.backoff import Backoff
from abe_router.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: Delays between attempts to connect, in seconds: the first one, and the longest.
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0
#: Redis 7.0 and Valkey 7.2 have this field in the `redis` table of scripts, earlier ones do not.
_PROBE = "return redis.REDIS_VERSION_NUM and 1 or 0"
#: What the replies under way may bring, in bytes; one more read than that is admitted.
_FLOW = 8 * 1024 * 1024


class FlowControl:
    """Limits how many bytes the reads of one connection may have under way, first come, first served.

    Replies come in the order of the commands, so every command waits for all reads before it: acks and lease
    renewals too. With a hundred busy streams that would be a hundred full replies.
    """

    def __init__(self, size: int = _FLOW) -> None:
        self._room = size
        self._waiting: dict[Callable[[], None], None] = {}

    def admits(self, again: Callable[[], None]) -> bool:
        """Say whether a read may be sent now; if not, `again` is called once when it may."""
        if self._room > 0:
            return True
        self._waiting[again] = None
        return False

    def sent(self, size: int, reply: asyncio.Future[object]) -> None:
        """Count a reply of so many bytes as under way until it ends, by a failure too."""
        self._room -= size
        reply.add_done_callback(lambda _: self._received(size))

    def _received(self, size: int) -> None:
        self._room += size
        while self._room > 0 and self._waiting:
            again = next(iter(self._waiting))
            del self._waiting[again]
            again()


class Connection:
    """Sends commands; `lost` is called when a connection broke, with the reason.

    `patience` is added to the time, in seconds, that the server may take to answer.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        *,
        lost: Callable[[str], None],
        patience: float = 0.0,
    ) -> None:
        self._address, self._credentials = address, credentials
        self._on_lost, self._patience = lost, patience
        credentials.add(self)
        #: Whether the server accepted a login before.
        self._known = False
        self._protocol: RedisProtocol | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self._backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._next_attempt = 0.0
        #: The server's id of this connection, for CLIENT UNBLOCK.
        self.client_id = 0

    @property
    def up(self) -> bool:
        """Whether commands can be sent right away."""
        return self._protocol is not None

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send a command now; raise BackendUnavailable when the connection is down."""
        return self._up().send(*args)

    def run(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg] = ()) -> asyncio.Future[Any]:
        """Send a script now; raise BackendUnavailable when the connection is down."""
        return self._up().run(script, keys, args)

    def flush_if_idle(self) -> None:
        """Write what was sent in this turn at once, if no reply is due."""
        if self._protocol:
            self._protocol.flush_if_idle()

    async def open(self) -> None:
        """Connect if necessary; concurrent calls share one attempt.

        Raise BackendUnavailable when the server cannot be reached, and BackendError when it refuses the login
        or is too old. After a failure the next attempt waits a little longer each time.
        """
        if self._closed:
            raise BackendUnavailable("the backend is closed")
        if self._protocol is None:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(self._opened)
            opening = self._opening
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                if opening.cancelled() and self._closed:  # `close` cancelled it, not the caller's task
                    raise BackendUnavailable("the backend is closed") from None
                raise

    async def close(self) -> None:
        """Disconnect for good; what is unanswered fails."""
        self._closed = True
        self._credentials.remove(self)
        if self._opening:
            self._opening.cancel()
        if self._protocol:
            self._protocol.abort("the backend was closed")
            await asyncio.sleep(0)  # the transport reports its end in the next turn

    def reset(self, why: str) -> None:
        """Disconnect; what is unanswered fails, and the next `open` connects."""
        if self._protocol:
            self._protocol.abort(why)

    def authenticate(self, credentials: tuple[str, ...]) -> None:
        """Log in again with new credentials; reconnect if the server refuses them."""
        if self._protocol:
            with suppress(BackendUnavailable):
                reply = self._protocol.send("AUTH", *credentials)
                reply.add_done_callback(partial(self._authenticated, self._protocol))

    def _authenticated(self, protocol: RedisProtocol, reply: asyncio.Future[Any]) -> None:
        if not reply.cancelled() and isinstance(reply.exception(), ServerError):
            _log.warning("Redis refused the new credentials: %s", reply.exception())
            protocol.abort("the server refused the new credentials")

    def _up(self) -> RedisProtocol:
        if self._protocol is None:
            raise BackendUnavailable(f"Redis at {self._address.public} cannot be reached")
        return self._protocol

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # marks it as seen: every caller that waited may be cancelled by now

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_attempt - loop.time())
        latest = self._credentials.latest
        try:
            protocol = await self._connect()
        except BaseException:
            self._next_attempt = loop.time() + self._backoff.next()
            raise
        self._backoff.reset()
        # After a success too: a server that accepts connections only to close them must not be stormed.
        self._next_attempt = loop.time() + _FIRST_DELAY
        self._protocol = protocol
        if self._credentials.latest is not latest:  # they came during the login
            self.authenticate(self._credentials.latest)

    async def _connect(self) -> RedisProtocol:
        address, loop = self._address, asyncio.get_running_loop()
        credentials = await self._credentials.get()
        timeout = address.answer_timeout + self._patience
        made: list[RedisProtocol] = []

        def make() -> RedisProtocol:
            made.append(RedisProtocol(timeout, lambda why: self._lost(made[0], why)))
            return made[0]

        try:
            async with asyncio.timeout(address.connect_timeout):
                if address.path:
                    await loop.create_unix_connection(make, address.path)
                else:
                    context = address.tls.context() if address.tls else None
                    await loop.create_connection(make, address.host, address.port, ssl=context)
                await self._greet(made[0], credentials)
        except TimeoutError:
            raise self._unreachable("it does not answer", made) from None
        except ssl.SSLError as error:
            raise self._unreachable(error.reason or str(error), made) from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error), made) from None
        except BaseException:
            for protocol in made:
                protocol.abort("the server refused the login")
            raise
        return made[0]

    async def _log_in(self, protocol: RedisProtocol, credentials: tuple[str, ...]) -> None:
        """Log in; a refusal of credentials that change is an outage, for the next ones may be right."""
        try:
            await protocol.send("AUTH", *credentials)
        except ServerError as error:
            if self._known and self._credentials.change:
                raise BackendUnavailable(str(error)) from error
            raise
        self._known = True

    async def _greet(self, protocol: RedisProtocol, credentials: tuple[str, ...]) -> None:
        """Log in, choose the database and check that the server is new enough."""
        address = self._address
        if credentials:
            await self._log_in(protocol, credentials)
        hello = protocol.send("HELLO")
        naming = protocol.send("CLIENT", "SETNAME", address.client_name)
        client_id = protocol.send("CLIENT", "ID")
        chosen = protocol.send("SELECT", address.database)
        probe = protocol.send("EVAL", _PROBE, 0)
        await asyncio.wait([hello, naming, client_id, chosen, probe])
        self._check_mode(hello)
        naming.exception()  # marks it as seen: the name only helps people who look at the server
        if not (client_id.result(), chosen.result(), probe.result())[-1]:
            raise BackendError(f"Redis at {address.public} is too old: Redis 7.0 or Valkey 7.2 is needed")
        if not isinstance(client_id.result(), int):
            raise BackendUnavailable(f"an answer of Redis at {address.public} cannot be read")
        self.client_id = client_id.result()

    def _check_mode(self, hello: asyncio.Future[Any]) -> None:
        """Raise BackendError when the server is a Sentinel, or part of a cluster without a hash tag."""
        reply = [] if hello.exception() else hello.result()
        mode = reply[reply.index(b"mode") + 1] if isinstance(reply, list) and b"mode" in reply else b""
        if mode == b"cluster" and not self._address.tag:
            raise BackendError(
                f"Redis at {self._address.public} is part of a cluster, which is not supported: "
                "scripts that touch several keys need all of them in one slot; "
                "give the URL of a plain server"
            )
        if mode == b"sentinel":
            raise BackendError(
                f"Redis at {self._address.public} is a Sentinel: give the URL of the server it watches"
            )

    def _unreachable(self, why: str, made: list[RedisProtocol]) -> BackendUnavailable:
        for protocol in made:
            protocol.abort(why)
        return BackendUnavailable(f"Redis at {self._address.public} cannot be reached: {why}")

    def _lost(self, protocol: RedisProtocol, why: str) -> None:
        if protocol is self._protocol:
            self._protocol = None
            self._on_lost(why)
