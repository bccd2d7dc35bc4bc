"""Sends refused commands again, for one connection.

Some refusals of a server say that it ran nothing, and that the same command will be accepted later or
elsewhere. So it is sent again, until the patience is over; a command without an answer never is.

    MOVED, READONLY, MASTERDOWN, CLUSTERDOWN  another server is looked for, and gets what waits here
    TRYAGAIN, LOADING                         the same server gets it again after a delay
    ASK                                       the server that is named gets this one command

States of a refused command, which is in one of them at a time:

- *waiting*: `_waiting` has it, in the order of the refusals, until there is a connection or the delay ends.
- *asked*: `_asks` has it, until the connection to the named server is up. A refusal there makes it wait.
- *sent*: the protocol has it.

Invariants:

- A command is sent again only after its refusal, so it never runs twice.
- A command that waits for longer than the patience fails with its refusal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from abe_router.backends.redis.address import Address, Place
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.finder import dial
from abe_router.backends.redis.protocol import Arg, RedisProtocol, Sent, ServerNotReady, fail
from abe_router.backends.redis.scripts import without_proof
from abe_router.errors import BackendError, BackendUnavailable

#: Refusals after which another server is looked for, and all refusals after which a command is sent again.
ELSEWHERE = frozenset({"MOVED", "READONLY", "MASTERDOWN", "CLUSTERDOWN"})
_RESENT = ELSEWHERE | {"TRYAGAIN", "LOADING", "ASK"}
#: Time until the same server gets a command again, in seconds.
_DELAY = 0.05


class Redirection:
    """The refused commands of a connection; `current` returns its protocol, None while there is none."""

    def __init__(
        self, address: Address, credentials: Credentials, current: Callable[[], RedisProtocol | None]
    ) -> None:
        self._address, self._credentials, self._current = address, credentials, current
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Sent] = deque()
        #: Until when each command is sent again, and its last refusal.
        self._until: dict[asyncio.Future[Any], tuple[float, BackendError]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asks: deque[tuple[Place, Sent]] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._named: dict[Place, RedisProtocol] = {}

    def add(self, args: tuple[Arg, ...], fallback: tuple[Arg, ...] | None) -> asyncio.Future[Any]:
        """Send a new command when there is a connection again."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._keep((future, args, fallback), BackendUnavailable("Redis cannot be reached"))
        return future

    def take(self, sent: Sent, error: ServerNotReady, *, place: Place | None = None) -> bool:
        """Take a refused command if it may be sent again; `place` is that of the server which refused it."""
        until, _ = self._until.get(sent[0], (self._loop.time() + 1.0, error))
        if error.code not in _RESENT or self._loop.time() >= until:
            return False
        future, args, fallback = sent
        sent = future, without_proof(args), fallback and without_proof(fallback)
        if error.code == "ASK" and place:
            self._asks.append((named_place(error, place), sent))
            self._remember(sent, error)
            if self._asking is None:
                self._asking = self._loop.create_task(self._ask())
                self._asking.add_done_callback(self._asked)
        else:
            self._keep(sent, error)
        return True

    def send(self, protocol: RedisProtocol) -> None:
        """Send all that waits."""
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            if not waiting[0][0].done():  # else its caller was cancelled
                try:
                    protocol.resend(waiting[0])
                except BackendUnavailable:
                    self._waiting = waiting
                    self._schedule()
                    return
            waiting.popleft()

    def fail_all(self, error: Exception) -> None:
        """Fail all that waits: there is no connection."""
        waiting, self._waiting = self._waiting, deque()
        for sent in (*waiting, *(sent for _, sent in self._asks)):
            if not sent[0].done():
                fail(sent[0], BackendUnavailable(str(error)))
        self._asks.clear()

    def close(self, error: Exception) -> None:
        """Fail all that waits, and disconnect from other servers."""
        self.fail_all(error)
        if self._timer:
            self._timer.cancel()
        if self._asking:
            self._asking.cancel()
        for protocol in tuple(self._named.values()):
            protocol.abort(str(error))

    def _keep(self, sent: Sent, error: BackendError) -> None:
        self._remember(sent, error)
        self._waiting.append(sent)
        self._schedule()

    def _remember(self, sent: Sent, error: BackendError) -> None:
        future = sent[0]
        if future not in self._until:
            future.add_done_callback(lambda future: self._until.pop(future, None))
            self._until[future] = self._loop.time() + self._address.answer_timeout, error
        else:
            self._until[future] = self._until[future][0], error

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_DELAY, self._send_again)

    def _send_again(self) -> None:
        self._timer = None
        now = self._loop.time()
        for sent in tuple(self._waiting):
            until, error = self._until.get(sent[0], (now, BackendUnavailable("Redis cannot be reached")))
            if now >= until:
                self._waiting.remove(sent)
                if not sent[0].done():
                    fail(sent[0], error)
        if protocol := self._current():
            self.send(protocol)
        elif self._waiting:
            self._schedule()

    async def _ask(self) -> None:
        """Send commands to the servers that were named for them alone."""
        try:
            while self._asks:
                place, sent = asked = self._asks[0]
                try:
                    protocol = self._named.get(place) or await self._dial(place)
                    if not sent[0].done():
                        protocol.send("ASKING")
                        protocol.resend((sent[0], sent[2] or sent[1], None))
                except (OSError, BackendError) as error:
                    self._keep(sent, BackendUnavailable(f"Redis at {place} cannot be reached: {error}"))
                if self._asks and self._asks[0] is asked:  # else `fail_all` has emptied it
                    self._asks.popleft()
        finally:
            self._asking = None  # not in `_asked`, for a command may come before that is called

    def _asked(self, asking: asyncio.Task[None]) -> None:
        if not asking.cancelled() and (error := asking.exception()):
            self.fail_all(BackendUnavailable(f"a command cannot be sent again: {error!r}"))

    async def _dial(self, place: Place) -> RedisProtocol:
        protocol = RedisProtocol(
            self._address.answer_timeout, lambda _: self._forget(place), self.take, keys_move=True
        )
        await dial(self._address, place, protocol, await self._credentials.get())
        self._named[place] = protocol
        return protocol

    def _forget(self, place: Place) -> None:
        self._named.pop(place, None)


def named_place(error: ServerNotReady, here: Place) -> Place:
    """Return the server that a refusal names, as `MOVED 866 10.0.0.7:6379`; without a host it is `here`."""
    host, _, port = str(error).rpartition(" ")[2].rpartition(":")
    return Place(host or here.host, int(port)) if port.isdecimal() else here
