"""Finds the server that takes the writes of a prefix: the one of the URL, of a slot, or of the Sentinels.

A connection asks each time it connects, because after a failover the remembered server may be alive, take
writes and lose them: the old primary of Sentinels does so for ten seconds. Nodes and Sentinels that are not
in the URL are learned from those that are, so later the seeds may be gone.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from abe_router.backends.redis.address import Address, Place, Sentinels
from abe_router.backends.redis.answers import UNREADABLE, unreadable
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.protocol import Arg, RedisProtocol, ServerError
from abe_router.errors import BackendError, BackendUnavailable

T = TypeVar("T")

#: Number of slots of a cluster.
SLOTS = 16384
#: Most nodes that are asked at a time; the next ones are asked next time.
_MOST_ASKED = 9
#: Number of Sentinels that must agree, if there are more than one.
_QUORUM = 2
#: How long, in seconds, other Sentinels may take to answer once two agree: they may know of a later failover.
_GRACE = 1.5


class Finder(Protocol):
    """Says where the server is that takes the writes now."""

    #: Whether that may change while the address stays.
    follows: bool
    #: A name in the slot of the prefix, empty if the server may not be a cluster node.
    key: str

    async def find(self, credentials: tuple[str, ...]) -> Place:
        """Return the place; raise BackendUnavailable when nothing that is asked knows it.

        It may be called in any event loop, so that a thread can ask too.
        """

    def redirect(self, place: Place) -> None:
        """Take note that a server named another one."""


def make_finder(address: Address, names: Names) -> Finder:
    """Return the finder of an address, for these names."""
    if address.sentinels:
        return SentinelFinder(address, address.sentinels)
    key = names.keys if names.tag else ""
    if address.is_cluster:
        return ClusterFinder(address, key, slot_of(names.tag))
    return FixedFinder(address.place, key)


def slot_of(tag: str) -> int:
    """Return the slot of the names with a hash tag."""
    return crc_hqx(tag.encode(), 0) % SLOTS


class SentinelView(NamedTuple):
    """The primary that a Sentinel names, its epoch, and whether it counts as down, in milliseconds."""

    primary: Place
    epoch: int
    down: bool
    down_after: int


#: The view of a Sentinel, None if it watches no primary of that name.
View = SentinelView | None


class FixedFinder:
    """The server of the URL. If it is a cluster node, it may name the owner of the slot, once each time."""

    follows = False

    def __init__(self, place: Place, key: str) -> None:
        self._place, self.key = place, key
        self._named: Place | None = None

    async def find(self, credentials: tuple[str, ...]) -> Place:  # noqa: ARG002
        named, self._named = self._named, None
        return named or self._place

    def redirect(self, place: Place) -> None:
        self._named = place


class ClusterFinder:
    """The owner of a slot, by what the nodes of the cluster say."""

    follows = True

    def __init__(self, address: Address, key: str, slot: int) -> None:
        self._address, self.key, self.slot = address, key, slot
        self._known: tuple[Place, ...] = ()
        self._named: Place | None = None
        self._first = 0

    async def find(self, credentials: tuple[str, ...]) -> Place:
        named, self._named = self._named, None
        if named:
            return named
        nodes = tuple(dict.fromkeys((*self._known, *self._address.seeds)))
        first = self._first % len(nodes)
        self._first = first + _MOST_ASKED
        chosen = (nodes[first:] + nodes[:first])[:_MOST_ASKED]
        errors: list[BackendError] = []
        owners = await collect([self._ask(node, credentials) for node in chosen], errors, any)
        if owner := next(filter(None, owners), None):
            return owner
        raise _none_knows(errors, f"no node of {self._address.public} that answers serves slot {self.slot}")

    def redirect(self, place: Place) -> None:
        self._named = place

    async def _ask(self, node: Place, credentials: tuple[str, ...]) -> Place | None:
        """Return the owner of the slot in the view of a node, None if there is none."""
        (rows,) = await ask(self._address, node, credentials, ("CLUSTER", "SLOTS"))
        # What a cluster refuses has a code of its own.
        if isinstance(rows, ServerError) and rows.code == "ERR":
            raise BackendError(f"Redis at {node} is no cluster node: write `redis://` in the URL") from rows
        ranges = slot_ranges(_or_raise(rows), node)
        self._known = tuple(dict.fromkeys(place for _, _, places in ranges for place in places))
        return next((places[0] for low, high, places in ranges if low <= self.slot <= high), None)


class SentinelFinder:
    """The primary that Sentinels name: two of them must agree, unless there is only one."""

    follows, key = True, ""

    def __init__(self, address: Address, sentinels: Sentinels) -> None:
        self._address, self._sentinels = address, sentinels
        self._login = tuple(part for part in (sentinels.username, sentinels.password) if part)
        self._known: dict[Place, None] = dict.fromkeys(address.seeds)
        #: The latest epoch of a primary that was believed.
        self._epoch = 0

    async def find(self, credentials: tuple[str, ...]) -> Place:  # noqa: ARG002
        views: list[View] = []
        errors: list[BackendError] = []
        asked: set[Place] = set()
        while new := [sentinel for sentinel in self._known if sentinel not in asked][:_MOST_ASKED]:
            asked.update(new)
            views += await collect(
                [self._ask(sentinel) for sentinel in new],
                errors,
                lambda found: self._agreed(found) is not None,
                _GRACE,
            )
        if primary := self._agreed(views):
            return primary
        name, named = self._sentinels.name, [view for view in views if view]
        if views and not named:
            raise BackendError(f"the Sentinels of {self._address.public} watch no primary called `{name}`")
        said = ", ".join(f"{view.primary}{' (down)' if view.down else ''}" for view in named) or "none"
        raise _none_knows(
            errors,
            f"of {len(self._known)} Sentinels two must agree on the primary `{name}`; named are: {said}",
        )

    def _agreed(self, views: Sequence[View]) -> Place | None:
        """Return the primary that two name, or the only Sentinel, None if there is none.

        Views of an earlier epoch than the latest one do not count: after a failover two Sentinels may still
        name the old primary. Only if all agree the epoch may have begun anew: they were set up again.
        """
        named = [view for view in views if view]
        latest = max([self._epoch, *(view.epoch for view in named)])
        votes = Counter(view.primary for view in named if view.epoch == latest and not view.down)
        for primary, count in votes.most_common(1):
            if count >= min(_QUORUM, len(self._known)):
                self._epoch = latest
                return primary
        if len(named) == len(self._known) and len(set(named)) == 1 and not named[0].down:
            self._epoch = named[0].epoch
            return named[0].primary
        return None

    def redirect(self, place: Place) -> None:
        """Ignore it: the Sentinels decide."""

    async def down_after(self) -> int:
        """Return after how many milliseconds without an answer a primary counts as gone, 0 if unknown."""
        found = await collect(map(self._ask, tuple(self._known)), [], any)
        return next((view.down_after for view in found if view), 0)

    async def views(self) -> list[tuple[Place, Place | BackendError | None]]:
        """Return the known Sentinels, and the primary that each names, None if it knows none."""
        sentinels = tuple(self._known)
        answers = await asyncio.gather(*map(self._ask, sentinels), return_exceptions=True)
        return [
            (sentinel, answer.primary if isinstance(answer, SentinelView) else answer)
            for sentinel, answer in zip(sentinels, answers, strict=True)
            if answer is None or isinstance(answer, SentinelView | BackendError)
        ]

    async def _ask(self, sentinel: Place) -> View:
        """Return the view of a Sentinel, None if it knows no primary; learn the other Sentinels."""
        name = self._sentinels.name
        named, primary, others = await ask(
            self._address,
            sentinel,
            self._login,
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
            ("SENTINEL", "MASTER", name),
            ("SENTINEL", "SENTINELS", name),
        )
        if isinstance(named, ServerError) and named.code == "ERR":
            raise BackendError(f"Redis at {sentinel} is no Sentinel: write `redis://` in the URL") from named
        if not _or_raise(named):
            return None
        for row in _or_raise(others):
            fields = _fields(row)
            self._known[Place(fields["ip"], int(fields["port"]))] = None
        host, port = named
        about = _fields(_or_raise(primary))
        place = Place(host.decode(), int(port))
        # During a failover it names the new primary already, and the flags are those of the old one.
        down = "_down" in about["flags"] and place == Place(about["ip"], int(about["port"]))
        return SentinelView(place, int(about["config-epoch"]), down, int(about["down-after-milliseconds"]))


def _fields(flat: Sequence[bytes]) -> dict[str, str]:
    words = [word.decode("utf-8", "replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def slot_ranges(rows: Any, asked: Place) -> list[tuple[int, int, list[Place]]]:
    """Return the first and the last slot of each range with the nodes that have it, the owner first.

    A node whose address is not known is the one that was asked.
    """
    return [
        (
            low,
            high,
            [
                Place(node[0].decode() if node[0] and node[0] != b"?" else asked.host, node[1])
                for node in nodes
            ],
        )
        for low, high, *nodes in rows
    ]


async def collect(
    calls: Iterable[Coroutine[Any, Any, T]],
    errors: list[BackendError],
    enough: Callable[[list[T]], bool],
    grace: float = 0.0,
) -> list[T]:
    """Make calls at a time; return their answers when they are enough, and the errors in their list.

    The other calls have `grace` seconds more, and are ended then.
    """
    loop = asyncio.get_running_loop()
    left = {asyncio.ensure_future(call) for call in calls}
    found: list[T] = []
    until: float | None = None
    try:
        while left and (until is None or loop.time() < until):
            patience = None if until is None else until - loop.time()
            done, left = await asyncio.wait(left, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for call in done:
                try:
                    found.append(call.result())
                except BackendError as error:
                    errors.append(error)
                except UNREADABLE as error:
                    errors.append(unreadable(error))
            if until is None and enough(found):
                until = loop.time() + grace
    finally:
        for call in left:
            call.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    return found


async def dial(address: Address, place: Place, protocol: RedisProtocol, login: tuple[str, ...]) -> None:
    """Connect a protocol to a place and log in; raise OSError or BackendError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(address.connect_timeout):
        if place.path:
            await loop.create_unix_connection(lambda: protocol, place.path)
        else:
            context = address.tls.context() if address.tls else None
            await loop.create_connection(lambda: protocol, place.host, place.port, ssl=context)
        if login:
            await log_in(protocol, login)


async def log_in(protocol: RedisProtocol, login: tuple[str, ...]) -> None:
    """Send a login; raise BackendError when the server refuses it, or BackendUnavailable."""
    _or_raise((await _answers(protocol, ("AUTH", *login)))[0])


async def _answers(protocol: RedisProtocol, *commands: Sequence[Arg]) -> list[Any]:
    """Return the replies to the first commands of a connection, refusals among them.

    A server with too many clients answers the first command with an error and closes the connection. So one
    more command is sent. Raise BackendUnavailable then.
    """
    replies = [protocol.send(*command) for command in (*commands, ("PING",))]
    *found, alive = await asyncio.gather(*replies, return_exceptions=True)
    first = found[0]
    if isinstance(first, ServerError) and first.code == "ERR" and isinstance(alive, BackendUnavailable):
        raise BackendUnavailable(f"the Redis server takes no further connection: {first}")
    return found


async def ask(address: Address, place: Place, login: tuple[str, ...], *commands: Sequence[Arg]) -> list[Any]:
    """Send commands over a connection of their own; return the replies, refusals among them.

    Raise BackendUnavailable when the server cannot be reached, and BackendError when it refuses the login.
    """
    protocol = RedisProtocol(address.connect_timeout, lambda _: None)
    try:
        await dial(address, place, protocol, login)
        async with asyncio.timeout(address.connect_timeout):
            return await _answers(protocol, *commands)
    except ServerError as error:
        raise ServerError(f"{error} (asked at {place})", error.code) from None
    except OSError as error:  # a TimeoutError too
        why = error.strerror or str(error) or "it does not answer"
        raise BackendUnavailable(f"Redis at {place} cannot be reached: {why}") from None
    finally:
        protocol.abort("it was asked")
        await asyncio.sleep(0)  # the transport reports its end in the next turn


def _or_raise(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _none_knows(errors: Sequence[BackendError], what: str) -> BackendError:
    """Return the error for answers of which none says where the server is.

    One that is no outage, such as a refused login, is more telling than the others.
    """
    lasting = [error for error in errors if not isinstance(error, BackendUnavailable)]
    if lasting:
        return lasting[0]
    reasons = "; ".join(dict.fromkeys(str(error) for error in errors))
    return BackendUnavailable(f"{what}{': ' if reasons else ''}{reasons}")
