"""One connection to a Redis server: commands go out in order, replies come back in that order.

Three things differ from a client library. Commands that are sent within one turn of the event loop leave in
one write, or in a few if they are large. Replies are matched in the callback that receives them. Nothing is
ever sent twice, whereas redis-py repeats commands that the server may have carried out.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from abe_router.backends.redis.entry import MOST_BYTES as ENTRY_BYTES
from abe_router.backends.redis.scripts import Script
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.text import format_duration

Arg = str | bytes | int | float
_INCOMPLETE = object()
#: Most bytes that wait for a joint write, not counting the last command. To join more takes fresh memory each
#: time, which costs more than another write.
_JOINT = 64 * 1024
#: So many calls keep the server busy for longer than a write takes.
MANY = 8
#: A connection is dead when replies are due and none came in this many checks in a row. One check is not
#: enough: after a pause of the whole process it may run before the bytes that have arrived are read.
_CHECKS = 4
#: The time that one answer may take to arrive, in units of the timeout. Without this, a header that announces
#: millions of parts would turn all later answers into parts of one that never ends.
_LONGEST_ANSWER = 12
#: Most bytes that may come without completing an answer. A server that announces more would fill the memory.
#: Scripts end their answers far below. A read is expected to bring a thirtieth. If it brings more than this,
#: because its entries are larger than those before, the connection ends. The next one takes them in pieces.
MOST_BYTES = 128 * 1024 * 1024
#: Most bytes of one part of an answer to XREAD and XREADGROUP, and of what hiredis may keep in front of it. A
#: larger part is a field of an entry over the limit. The connection ends before most of it has come, and the
#: recovery makes the entry a dead letter on the server.
_MOST_PART = ENTRY_BYTES + 4096
_READS = frozenset({"XREAD", "XREADGROUP"})
_SCRIPTS = frozenset({"EVAL", "EVALSHA"})

#: Refusals that pass: the server starts, changes its role, is out of memory or disk, or is busy, or another
#: node of its cluster has the slot.
_PASSING = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
    }
)
#: What a quotation in a reply begins and ends with.
_QUOTE = re.compile("['\"`]")
_HINTS = {
    "NOAUTH": "; the server asks for a password and the URL has none",
    "WRONGPASS": "; check the user name and password in the URL",
    "NOPERM": "; the ACL of this user lacks something this backend needs",
    "WRONGTYPE": "; a key of that name holds something else than a stream",
}


class ServerError(BackendError):
    """Raised when the server refuses a command; `code` is the first word of its reply."""

    def __init__(self, message: str, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class ServerNotReady(BackendUnavailable):
    """Raised when the server refuses a command for now; `code` is the first word of its reply."""

    def __init__(self, message: str, code: str = "") -> None:
        self.code = code
        super().__init__(message)


#: A command that was sent: its reply to come, its arguments, and those of the script with its text.
Sent = tuple[asyncio.Future[Any], tuple[Arg, ...], tuple[Arg, ...] | None]


def server_error(reply: str) -> BackendError:
    """Turn an error reply into an exception.

    A reply may quote the arguments of its command, which may be payload, so nothing stays behind a first
    quotation if there are more.
    """
    code, _, _ = reply.partition(" ")
    parts = _QUOTE.split(reply)
    text = (reply if len(parts) <= 3 else f"{parts[0]}'{parts[1]}'").rstrip(".")
    if code in _PASSING:
        return ServerNotReady(f"the Redis server is not ready: {text}", code)
    return ServerError(f"the Redis server refused: {text}{_HINTS.get(code, '')}", code)


class RedisProtocol(asyncio.Protocol):
    """A connection; `timeout` is in seconds, `lost` is called once, with the reason, when it ends.

    `refused` gets each command that the server refuses for now, and says whether it takes care of it. In a
    cluster, `keys_move`: a script that fails on the server may have met a key that another node has now.
    """

    def __init__(
        self,
        timeout: float,
        lost: Callable[[str], None],
        refused: Callable[[Sent, ServerNotReady], bool] | None = None,
        *,
        keys_move: bool = False,
    ) -> None:
        self._timeout, self._lost, self._refused = timeout, lost, refused
        self._keys_move = keys_move
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=server_error, notEnoughData=_INCOMPLETE)
        self._out: list[bytes] = []
        self._size = 0
        self._pending: deque[Sent] = deque()
        #: How many commands were answered. Commands are numbered from 1, in the order in which they are sent.
        self._answered = 0
        #: By the hash of a script, the number of the command that sent its text last.
        self._texts: dict[Arg, int] = {}
        self._transport: asyncio.Transport | None = None
        self._silent = 0
        #: Bytes that arrived since the last whole answer.
        self._partial = 0
        #: Checks in a row that found an answer incomplete.
        self._incomplete = 0
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._why = "the connection was closed by the server"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream protocol gets a Transport
        self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check)

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        self._reader.feed(data)
        self._partial += len(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._partial = self._incomplete = 0
                if not self._pending:
                    self.abort("the server sent an answer to no command")
                    return
                self._answer(reply)
        except hiredis.ProtocolError:
            self.abort("the server does not speak the Redis protocol")
        except MemoryError:  # for an array of billions of parts
            self.abort("an answer is too large")
        if self._retired and not self._pending:
            self.abort(self._why)
        if self._partial > _MOST_PART and (why := self._too_large()):
            self._partial = 0
            self._reader = hiredis.Reader(replyError=server_error, notEnoughData=_INCOMPLETE)
            self.abort(why)

    def connection_lost(self, error: Exception | None) -> None:
        transport, self._transport = self._transport, None
        if self._timer:
            self._timer.cancel()
        why = f"the connection was lost: {error}" if error else self._why
        for future, _, _ in self._pending:
            if not future.done():
                fail(future, BackendUnavailable(f"no answer from Redis: {why}"))
        self._pending.clear()
        if transport:
            self._lost(why)

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send a command; return its reply to come, a BackendError if the server refuses.

        The caller may ignore the reply; an error is lost then.
        """
        return self._push(args, None)

    def run(self, script: Script, keys: Sequence[Arg], args: Sequence[Arg]) -> asyncio.Future[Any]:
        """Send a script by its hash, and by its text when the server does not know it."""
        rest = (len(keys), *keys, *args)
        return self._push(("EVALSHA", script.sha, *rest), ("EVAL", script.text, *rest))

    def resend(self, sent: Sent) -> None:
        """Send a command that another connection, or this one, refused."""
        future, args, fallback = sent
        self._push(args, fallback, future)

    def retire(self, why: str) -> None:
        """End the connection once all that was sent is answered."""
        self._retired, self._why = True, why
        if not self._pending:
            self.abort(why)

    def flush_early(self, calls: int) -> None:
        """Write now, and not at the end of this turn, what was sent in this turn, if that pays.

        On a quiet connection, where no reply is due, it saves latency. On a busy one a joint write saves
        more, unless `calls` are so many that the server works on them for the rest of the turn.
        """
        if calls >= MANY or len(self._pending) == len(self._out):
            self._flush()

    def _flush(self) -> None:
        if self._out and self._transport:
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._size = 0

    def abort(self, why: str) -> None:
        """End the connection; all that is unanswered fails with `why`."""
        self._why = why
        if self._transport:
            self._transport.abort()

    def _push(
        self,
        args: tuple[Arg, ...],
        fallback: tuple[Arg, ...] | None,
        future: asyncio.Future[Any] | None = None,
    ) -> asyncio.Future[Any]:
        if self._transport is None or self._transport.is_closing():
            raise BackendUnavailable(f"Redis cannot be reached: {self._why}")
        future = future or self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        packed = hiredis.pack_command(args)  # type: ignore[arg-type]  # its stub means `tuple[..., ...]`
        self._out.append(packed)
        self._pending.append((future, args, fallback))
        self._size += len(packed)
        if self._size >= _JOINT:
            self._flush()
        return future

    def _answer(self, reply: Any) -> None:
        sent = self._pending.popleft()
        self._answered += 1
        future, args, fallback = sent
        if future.done():  # its caller was cancelled
            return
        if isinstance(reply, Exception):
            if self._keys_move and args[0] in _SCRIPTS and getattr(reply, "code", "") == "ERR":
                reply = ServerNotReady(f"the Redis server is not ready for a script: {reply}", "ERR")
            if fallback and isinstance(reply, ServerError) and reply.code == "NOSCRIPT":
                self._send_text(args, fallback, future)
            elif not (self._refused and isinstance(reply, ServerNotReady) and self._refused(sent, reply)):
                fail(future, reply)
        else:
            future.set_result(reply)

    def _send_text(self, args: tuple[Arg, ...], text: tuple[Arg, ...], future: asyncio.Future[Any]) -> None:
        """Send a script whose hash the server did not know by its text, or by its hash behind that text.

        Of many such commands in a row only the first sends the text.
        """
        if self._answered <= self._texts.get(args[1], 0):
            self._push(args, text, future)
            return
        self._push(text, None, future)
        self._texts[args[1]] = self._answered + len(self._pending)

    def _too_large(self) -> str:
        """Return what is wrong with the answer that is arriving, empty if it may continue."""
        if self._partial > MOST_BYTES:
            return f"an answer is larger than {MOST_BYTES >> 20} MiB"
        if self._reader.len() > _MOST_PART and self._pending and self._pending[0][1][0] in _READS:
            return f"an entry is larger than {ENTRY_BYTES >> 20} MiB; the server makes it a dead letter"
        return ""

    def _check(self) -> None:
        self._silent = self._silent + 1 if self._pending else 0
        self._incomplete = self._incomplete + 1 if self._partial else 0
        if self._silent > _CHECKS:
            self.abort(f"it kept silent for {format_duration(self._timeout)}")
        elif self._incomplete > _LONGEST_ANSWER * _CHECKS:
            self.abort(f"an answer takes longer than {format_duration(_LONGEST_ANSWER * self._timeout)}")
        else:
            self._timer = self._loop.call_later(self._timeout / _CHECKS, self._check)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a reply to come."""
    future.set_exception(error)
    future.exception()  # marks it as seen, so that asyncio does not complain of a reply nothing waits for
