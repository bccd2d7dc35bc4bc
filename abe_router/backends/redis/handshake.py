"""Makes a connection ready: connects to the server, logs in, and checks that it is what the URL says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from abe_router.backends.redis.address import Address, Place
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.finder import Finder, dial, log_in
from abe_router.backends.redis.protocol import RedisProtocol, ServerError, ServerNotReady
from abe_router.backends.redis.redirection import named_place
from abe_router.errors import BackendError, BackendUnavailable

#: Redis 7.0 and Valkey 7.2 have this field in the `redis` table of scripts, earlier ones do not.
_PROBE = "return redis.REDIS_VERSION_NUM and 1 or 0"
#: Most servers that name another one while connecting.
_MOST_MOVES = 5


class ClusterFound(BackendError):
    """Raised when the server of a plain URL is part of a cluster."""


class Handshake:
    """Connects the protocols of one connection, one after the other."""

    def __init__(self, address: Address, credentials: Credentials, finder: Finder) -> None:
        self._address, self._credentials, self._finder = address, credentials, finder
        #: Whether the server accepted a login before.
        self._known = False
        #: Where the server is that was connected to last, or is being connected to.
        self.place: Place = address.place
        #: The server's id of the latest connection.
        self.client_id = 0

    async def connect(self, make: Callable[[], RedisProtocol]) -> RedisProtocol:
        """Connect a protocol to the server that the finder names, and to those that servers name instead.

        Raise BackendUnavailable when the server cannot be reached, and BackendError when it refuses the
        login, is too old, or is not what the URL says.
        """
        for _ in range(_MOST_MOVES):
            try:
                return await self._connect_once(make())
            except ServerNotReady as error:
                if error.code != "MOVED":
                    raise
                self._finder.redirect(named_place(error, self.place))
        raise BackendUnavailable(f"the nodes of {self._address.public} disagree on which has the slot")

    async def _connect_once(self, protocol: RedisProtocol) -> RedisProtocol:
        credentials = await self._credentials.get()
        try:
            async with asyncio.timeout(self._address.connect_timeout):
                self.place = await self._finder.find(credentials)
                await dial(self._address, self.place, protocol, ())
                await self._greet(protocol, credentials)
        except TimeoutError:
            why = (
                "it does not answer over TLS; does this port use TLS?"
                if self._address.tls
                else "it does not answer"
            )
            raise self._unreachable(why, protocol) from None
        except ssl.SSLError as error:
            raise self._unreachable(error.reason or str(error), protocol) from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error), protocol) from None
        except BaseException:
            protocol.abort("the server refused the login")
            raise
        return protocol

    async def _greet(self, protocol: RedisProtocol, credentials: tuple[str, ...]) -> None:
        """Log in, choose the database and check that the server is new enough."""
        address = self._address
        if credentials:
            await self._log_in(protocol, credentials)
        hello = protocol.send("HELLO")
        naming = protocol.send("CLIENT", "SETNAME", address.client_name)
        client_id = protocol.send("CLIENT", "ID")
        chosen = protocol.send("SELECT", address.database)
        keys = (self._finder.key,) if self._finder.key else ()
        probe = protocol.send("EVAL", _PROBE, len(keys), *keys)
        await asyncio.wait([hello, naming, client_id, chosen, probe])
        self._check_mode(hello)
        naming.exception()  # marks the error as seen: a connection works without its name too
        if isinstance(refused := probe.exception(), ServerNotReady) and refused.code in ("ASK", "TRYAGAIN"):
            new_enough: Any = True  # the slot is on its way to another node
        else:
            new_enough = probe.result()
        if not (client_id.result(), chosen.result(), new_enough)[-1]:
            raise BackendError(f"Redis at {address.public} is too old: Redis 7.0 or Valkey 7.2 is needed")
        if not isinstance(client_id.result(), int):
            raise BackendUnavailable(f"an answer of Redis at {address.public} cannot be read")
        self.client_id = client_id.result()

    async def _log_in(self, protocol: RedisProtocol, credentials: tuple[str, ...]) -> None:
        """Log in; a refusal of credentials that change is an outage, for the next ones may be right."""
        try:
            await log_in(protocol, credentials)
        except ServerError as error:
            if self._known and self._credentials.change:
                raise BackendUnavailable(str(error)) from error
            raise
        self._known = True

    def _check_mode(self, hello: asyncio.Future[Any]) -> None:
        """Raise BackendError when the server is not what the URL says."""
        reply = [] if hello.exception() else hello.result()
        words = reply if isinstance(reply, list) else []
        mode, role = (words[words.index(word) + 1] if word in words else b"" for word in (b"mode", b"role"))
        if mode == b"cluster" and not self._finder.key:
            raise ClusterFound(
                f"Redis at {self.place} is part of a cluster: give the URL redis+cluster://{self.place}/"
            )
        if mode == b"sentinel":
            raise BackendError(
                f"Redis at {self.place} is a Sentinel: give the URL redis+sentinel://{self.place}/NAME "
                "with the name of the primary that it watches"
            )
        if self._address.sentinels and role not in (b"", b"master"):
            raise BackendUnavailable(
                f"Redis at {self.place} is named by the Sentinels and is a replica still"
            )

    def _unreachable(self, why: str, protocol: RedisProtocol) -> BackendUnavailable:
        protocol.abort(why)
        return BackendUnavailable(f"Redis at {self._address.public} cannot be reached: {why}")
