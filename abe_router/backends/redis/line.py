"""A connection to Redis that comes back: one wire at a time, opened anew when the last one broke.

It repeats nothing: what was sent and not answered when a wire breaks fails with BackendUnavailable, for
only the caller knows whether it may be sent again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from abe_router.backends.redis.address import Address
from abe_router.backends.redis.scripts import Script
from abe_router.backends.redis.wire import Arg, Wire
from abe_router.errors import BackendError, BackendUnavailable

#: Pauses between attempts to connect, in seconds: the first one, which doubles, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
#: Redis 7.0 and Valkey 7.2 have this field in the `redis` table of scripts, earlier ones do not.
_PROBE = "return redis.REDIS_VERSION_NUM and 1 or 0"


class Line:
    """A way to send commands; `lost` is called when a wire broke, with the reason.

    `patience` is added to the time, in seconds, that the server may take to answer.
    """

    def __init__(self, address: Address, *, lost: Callable[[str], None], patience: float = 0.0) -> None:
        self._address, self._on_lost, self._patience = address, lost, patience
        self._wire: Wire | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self._pause = 0.0
        self._next_attempt = 0.0
        #: What the server calls this connection, for CLIENT UNBLOCK.
        self.client_id = 0

    @property
    def up(self) -> bool:
        """Whether commands can be sent right away."""
        return self._wire is not None

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send a command now; raise BackendUnavailable when the line is down."""
        return self._up().send(*args)

    def run(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg] = ()) -> asyncio.Future[Any]:
        """Send a script now; raise BackendUnavailable when the line is down."""
        return self._up().run(script, keys, args)

    def hurry(self) -> None:
        """Let what was sent go at once, not at the end of this turn, if the line is quiet otherwise."""
        if self._wire:
            self._wire.hurry()

    async def open(self) -> None:
        """Connect if need be; concurrent calls share one attempt.

        Raise BackendUnavailable when the server cannot be reached and BackendError when it does not let
        us in or is too old. After a failure the next attempt waits a little longer each time.
        """
        if self._closed:
            raise BackendUnavailable("the backend is closed")
        if self._wire is None:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(self._opened)
            opening = self._opening
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                if opening.cancelled() and self._closed:  # it was not the caller who was cancelled
                    raise BackendUnavailable("the backend is closed") from None
                raise

    async def close(self) -> None:
        """Disconnect for good; what is unanswered fails."""
        self._closed = True
        if self._opening:
            self._opening.cancel()
        if self._wire:
            self._wire.abort("the backend was closed")
            await asyncio.sleep(0)  # the transport reports its end in the next turn

    def _up(self) -> Wire:
        if self._wire is None:
            raise BackendUnavailable(f"Redis at {self._address.public} cannot be reached")
        return self._wire

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # everyone who waited may be gone, and then nobody else looks at it

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_attempt - loop.time())
        try:
            wire = await self._connect()
        except BaseException:
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._next_attempt = loop.time() + self._pause
            raise
        self._pause = 0.0
        # Also after a success: a server that lets us in only to hang up must not be stormed.
        self._next_attempt = loop.time() + _FIRST_PAUSE
        self._wire = wire

    async def _connect(self) -> Wire:
        address, loop = self._address, asyncio.get_running_loop()
        timeout = address.answer_timeout + self._patience
        made: list[Wire] = []

        def make() -> Wire:
            made.append(Wire(timeout, lambda why: self._lost(made[0], why)))
            return made[0]

        try:
            async with asyncio.timeout(address.connect_timeout):
                if address.path:
                    await loop.create_unix_connection(make, address.path)
                else:
                    context = address.tls.context() if address.tls else None
                    await loop.create_connection(make, address.host, address.port, ssl=context)
                await self._greet(made[0])
        except TimeoutError:
            raise self._unreachable("it does not answer", made) from None
        except ssl.SSLError as error:
            raise self._unreachable(error.reason or str(error), made) from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error), made) from None
        except BaseException:
            for wire in made:
                wire.abort("the server did not let us in")
            raise
        return made[0]

    async def _greet(self, wire: Wire) -> None:
        """Log in, choose the database and look whether the server knows all that is needed of it."""
        address = self._address
        if address.password:
            await wire.send("AUTH", *([address.username] if address.username else []), address.password)
        hello = wire.send("HELLO")
        naming = wire.send("CLIENT", "SETNAME", address.client_name)
        client_id = wire.send("CLIENT", "ID")
        chosen = wire.send("SELECT", address.database)
        probe = wire.send("EVAL", _PROBE, 0)
        await asyncio.wait([hello, naming, client_id, chosen, probe])
        self._require_plain(hello)
        naming.exception()  # the name is for people who look at the server, so it may be missing
        if not (client_id.result(), chosen.result(), probe.result())[-1]:
            raise BackendError(f"Redis at {address.public} is too old: Redis 7.0 or Valkey 7.2 is needed")
        self.client_id = client_id.result()

    def _require_plain(self, hello: asyncio.Future[Any]) -> None:
        """Raise BackendError when the server is part of a cluster, or watches others."""
        told = [] if hello.exception() else hello.result()
        mode = told[told.index(b"mode") + 1] if isinstance(told, list) and b"mode" in told else b""
        if mode == b"cluster":
            raise BackendError(
                f"Redis at {self._address.public} is part of a cluster, which is not supported: "
                "what a handler emits, and what is removed, could not be kept in one step there; "
                "give the URL of a plain server"
            )
        if mode == b"sentinel":
            raise BackendError(
                f"Redis at {self._address.public} is a Sentinel: give the URL of the server it watches"
            )

    def _unreachable(self, why: str, made: list[Wire]) -> BackendUnavailable:
        for wire in made:
            wire.abort(why)
        return BackendUnavailable(f"Redis at {self._address.public} cannot be reached: {why}")

    def _lost(self, wire: Wire, why: str) -> None:
        if wire is self._wire:
            self._wire = None
            self._on_lost(why)
