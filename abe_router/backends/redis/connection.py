"""A connection to Redis that reconnects: one protocol at a time, a new one when the last one broke.

What was sent and not answered when a connection breaks fails with BackendUnavailable, because only the caller
knows whether it may be sent again. What the server refused because another one has the data is sent again.

States:

- *down*: no protocol. Commands fail at once. `open` starts an attempt to connect, shared by all callers.
- *up* (`_protocol`): commands go out. A lost protocol leads to *down*.
- *moving* (`_moving`): the server refused a command because it does not take writes of this prefix. Its
  protocol ends when all that was sent is answered. Commands wait in `_redirection`. A new connection leads to
  *up* and gets them in their order. Without one until the patience is over, the state is *down*.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from abe_router.backends.redis.address import Address, Place
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.finder import Finder
from abe_router.backends.redis.handshake import Handshake
from abe_router.backends.redis.protocol import Arg, RedisProtocol, Sent, ServerError, ServerNotReady
from abe_router.backends.redis.redirection import ELSEWHERE, Redirection, named_place
from abe_router.backends.redis.scripts import Script
from abe_router.backoff import Backoff
from abe_router.errors import BackendUnavailable

_log = logging.getLogger(__name__)

#: Delays between attempts to connect, in seconds: the first one, and the longest.
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0
#: What the replies under way may bring, in bytes; one more read than that is admitted. With four times as
#: much a hundred routes lost a tenth of their rate: what was read leaves the caches before its handler runs.
_FLOW = 2 * 1024 * 1024


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
    """Sends commands; `lost` is called when a connection broke or is left, with the reason.

    `patience` is added to the time, in seconds, that the server may take to answer. Unless it `resends`, a
    refused command fails, and the connection ends if another server has the data.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        finder: Finder,
        *,
        lost: Callable[[str], None],
        patience: float = 0.0,
        resends: bool = True,
    ) -> None:
        self._address, self._credentials, self._finder = address, credentials, finder
        self._on_lost, self._patience = lost, patience
        credentials.add(self)
        self._handshake = Handshake(address, credentials, finder)
        self._protocol: RedisProtocol | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self._backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._next_attempt = 0.0
        self._redirection = Redirection(address, credentials, lambda: self._protocol) if resends else None
        self._moving = False
        #: Delays before the server is looked for that takes our commands.
        self._moves = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        #: The protocol that was left and has not ended, and what is set when it ends.
        self._left: tuple[RedisProtocol, asyncio.Event] | None = None

    @property
    def place(self) -> Place:
        """Where the server is that it is, or was last, connected to."""
        return self._handshake.place

    @property
    def client_id(self) -> int:
        """The server's id of this connection, for CLIENT UNBLOCK."""
        return self._handshake.client_id

    @property
    def up(self) -> bool:
        """Whether commands can be sent right away, or when the server is found that takes them."""
        return self._protocol is not None or self._moving

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send a command now; raise BackendUnavailable when the connection is down."""
        if self._protocol is None:
            return self._send_later(args, None)
        return self._protocol.send(*args)

    def run(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg] = ()) -> asyncio.Future[Any]:
        """Send a script now; raise BackendUnavailable when the connection is down."""
        if self._protocol is None:
            rest = (len(keys), *keys, *args)
            return self._send_later(("EVALSHA", script.sha, *rest), ("EVAL", script.text, *rest))
        return self._protocol.run(script, keys, args)

    def confirm(self, replicas: int, seconds: float) -> asyncio.Future[Any]:
        """Wait until so many replicas have what this connection wrote; the reply says how many have it.

        It is never sent over another connection, which has written nothing. Raise BackendUnavailable when the
        connection is down.
        """
        if self._protocol is None:
            raise BackendUnavailable("the server changed, and its replicas cannot be asked any more")
        return self._protocol.send("WAIT", replicas, math.ceil(seconds * 1000))

    def flush_early(self, calls: int = 1) -> None:
        """Write what was sent in this turn at once, if that pays: see `RedisProtocol.flush_early`."""
        if self._protocol:
            self._protocol.flush_early(calls)

    async def open(self) -> None:
        """Connect if necessary; concurrent calls share one attempt.

        Raise BackendUnavailable when the server cannot be reached, and BackendError when it refuses the login
        or is too old. After a failure the next attempt waits a little longer each time.
        """
        if self._closed:
            raise BackendUnavailable("the backend is closed")
        if not self.up:
            if self._opening is None:
                self._start(self._open())
            opening = self._opening
            assert opening is not None
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                if opening.cancelled() and self._closed:  # `close` cancelled it, not the caller's task
                    raise BackendUnavailable("the backend is closed") from None
                raise

    async def close(self) -> None:
        """Disconnect for good; what is unanswered fails."""
        self._closed = True
        self._moving = False
        self._credentials.remove(self)
        if opening := self._opening:
            opening.cancel()
            await asyncio.wait([opening])
        if self._redirection:
            self._redirection.close(BackendUnavailable("the backend was closed"))
        for protocol in (self._protocol, self._left and self._left[0]):
            if protocol:
                protocol.abort("the backend was closed")
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

    def _send_later(self, args: tuple[Arg, ...], fallback: tuple[Arg, ...] | None) -> asyncio.Future[Any]:
        if self._moving and self._redirection:
            return self._redirection.add(args, fallback)
        raise BackendUnavailable(f"Redis at {self._address.public} cannot be reached")

    def _start(self, opening: Coroutine[Any, Any, None]) -> None:
        self._opening = asyncio.create_task(opening)
        self._opening.add_done_callback(self._opened)

    def _refused(self, protocol: RedisProtocol, sent: Sent, error: ServerNotReady) -> bool:
        """Say whether a refused command is sent again; leave a server that does not take our commands."""
        if protocol is self._protocol and error.code in ELSEWHERE:
            self._leave(protocol, error)
        is_left = self._left is not None and protocol is self._left[0]
        if self._redirection is None or self._closed or not (protocol is self._protocol or is_left):
            return False  # or it is still greeted
        return self._redirection.take(sent, error, place=self.place)

    def _leave(self, protocol: RedisProtocol, error: ServerNotReady) -> None:
        if error.code == "MOVED":
            self._finder.redirect(named_place(error, self.place))
        if self._redirection is None:
            protocol.abort(str(error))
            return
        now = asyncio.get_running_loop().time()
        if now - self._next_attempt > self._address.answer_timeout:
            self._moves.reset()
        if error.code != "MOVED":  # the same server may be found again
            self._next_attempt = now + self._moves.next()
        self._left = protocol, asyncio.Event()
        self._protocol, self._moving = None, True
        why = f"{self.place} answered {error.code}"
        protocol.retire(why)
        self._on_lost(why)
        self._start(self._move(self._left[1]))

    async def _move(self, ended: asyncio.Event) -> None:
        """Connect to the server that takes our commands now, once the one that was left has answered."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._address.answer_timeout
        await ended.wait()
        while self._moving:
            try:
                await self._open()
            except Exception as error:
                if loop.time() >= until or not isinstance(error, BackendUnavailable):
                    self._moving = False
                    assert self._redirection is not None
                    self._redirection.fail_all(error)
                    raise

    def _opened(self, opening: asyncio.Task[None]) -> None:
        if self._opening is opening:
            self._opening = None
        if not opening.cancelled():
            opening.exception()  # marks it as seen: every caller that waited may be cancelled by now

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_attempt - loop.time())
        latest = self._credentials.latest
        try:
            protocol = await self._handshake.connect(self._make)
        except BaseException:
            self._next_attempt = loop.time() + self._backoff.next()
            raise
        self._backoff.reset()
        # After a success too: a server that accepts connections only to close them must not be stormed.
        self._next_attempt = loop.time() + _FIRST_DELAY
        self._protocol, self._moving = protocol, False
        if self._redirection:
            self._redirection.send(protocol)
        if self._credentials.latest is not latest:  # they came during the login
            self.authenticate(self._credentials.latest)

    def _make(self) -> RedisProtocol:
        protocol = RedisProtocol(
            self._address.answer_timeout + self._patience,
            lambda why: self._lost(protocol, why),
            lambda sent, error: self._refused(protocol, sent, error),
            keys_move=bool(self._finder.key),
        )
        return protocol

    def _lost(self, protocol: RedisProtocol, why: str) -> None:
        if protocol is self._protocol:
            self._protocol = None
            self._on_lost(why)
        elif self._left and protocol is self._left[0]:
            self._left[1].set()
            self._left = None
