"""Checks what weakens the promise on a Redis server: its state, the rights of this user, lost messages.

A check writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from abe_router.backend import (
    HealthCheck,
    HealthResult,
    SubscriptionName,
    orphaned_subscriptions,
    unread_keys,
)
from abe_router.backends.redis import scripts
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.entry import accepted_at, order
from abe_router.backends.redis.finder import make_finder
from abe_router.backends.redis.gaps import Change, GroupChanges
from abe_router.backends.redis.handshake import ClusterFound
from abe_router.backends.redis.names import Names, escape_glob, group_name, lease_of
from abe_router.backends.redis.protocol import ServerError, ServerNotReady
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import RIGHTS, STREAM, Script
from abe_router.backends.redis.server import ask, check
from abe_router.backends.redis.topology import Topology
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.pattern import PatternIndex, matches
from abe_router.text import format_time

#: Streams asked for at a time, and pending entries counted of a group.
_CHUNK, _PENDING = 50, 1000
#: Most groups whose consumers are looked at.
_CONSUMERS = 500
#: By how many seconds an id may be ahead of the server's clock: NTP sets clocks back by less.
_AHEAD = 60
#: The commands that are sent as such. Those of the scripts are read from the scripts.
_SENT = (
    "AUTH",
    "CLIENT|ID",
    "CLIENT|SETNAME",
    "CLIENT|UNBLOCK",
    "EVAL",
    "EVALSHA",
    "EXPIRE",
    "HDEL",
    "HELLO",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HINCRBY",
    "PING",
    "SADD",
    "SCAN",
    "SELECT",
    "SISMEMBER",
    "SMEMBERS",
    "TIME",
    "XACK",
    "XADD",
    "XDEL",
    "XGROUP|CREATE",
    "XINFO|GROUPS",
    "XPENDING",
    "XREAD",
    "XREADGROUP",
    "XREVRANGE",
)
#: Those that only a cluster needs, and the one that only `replicas` needs.
_ON_CLUSTER, _FOR_REPLICAS = ("ASKING", "CLUSTER|SLOTS"), ("WAIT",)
_CONTAINERS = ("CLIENT", "CLUSTER", "XGROUP", "XINFO")
#: A command as it stands in a script: `redis.call('XADD', …` or `{'XCLAIM', …`.
_IN_LUA = re.compile(r"(?:call\(|\{)'([A-Z]+)'(?:, '([A-Z]+)')?")
#: The server allows them to every user.
_FREE = frozenset({"AUTH", "HELLO"})
#: Commands without a key, and those whose key is not the first argument.
_KEYLESS = frozenset(
    {
        *("ASKING", "CLIENT|ID", "CLIENT|SETNAME", "CLIENT|UNBLOCK", "CLUSTER|SLOTS", "EVAL", "EVALSHA"),
        *("PING", "SCAN", "SELECT", "TIME", "WAIT"),
    }
)
_ARGUMENTS = {
    "XREAD": "STREAMS",
    "XREADGROUP": "GROUP g c STREAMS",
    "EVAL": "0 0",
    "EVALSHA": "0 0",
    "WAIT": "0 0",
}


def commands(names: Names, *, replicas: int = 0) -> list[str]:
    """Return the commands that we use, in order, with their subcommands after a bar."""
    found = {*_SENT, *(_ON_CLUSTER if names.tag else ()), *(_FOR_REPLICAS if replicas else ())}
    for script in vars(scripts).values():
        if isinstance(script, Script):
            for name, sub in _IN_LUA.findall(script.text):
                found.add(f"{name}|{sub}" if name in _CONTAINERS else name)
    return sorted(found)


def rules(names: Names, *, replicas: int = 0) -> list[str]:
    """Return the smallest rules of `ACL SETUSER` under which a backend with these names works."""
    allowed = [f"+{name.lower()}" for name in commands(names, replicas=replicas) if name not in _FREE]
    others = [f"~{escape_glob(names.others)}*"] if names.streams else []
    return [f"~{names.glob}", *others, "-@all", *allowed]


async def lacking(
    connection: Connection, names: Names, *, replicas: int = 0
) -> tuple[Sequence[str], Sequence[str]]:
    """Return what the user may not do: the patterns of the keys it may not touch, and the commands.

    The server checks the rights and runs nothing. Raise BackendError when the user may not even ask.
    """
    touched = {f"~{names.glob}": names.stream("x.y"), f"~{escape_glob(names.others)}*": names.keys}
    asked = {pattern: ["EVAL", "return 1", "1", key] for pattern, key in touched.items()}
    used = commands(names, replicas=replicas)
    asked |= {name: _sample(name, names.stream("x.y")) for name in used if name not in _FREE}
    words = [word for sample in asked.values() for word in (str(len(sample)), *sample)]
    refused = await connection.run(RIGHTS, (), words)
    missing = [what for what, may in zip(asked, refused, strict=True) if not may]
    patterns = [what for what in missing if what.startswith("~")]
    # Without the keys every command is refused, which says nothing about the commands.
    return patterns, [] if patterns else [what for what in missing if not what.startswith("~")]


def _sample(command: str, key: str) -> list[str]:
    words = [*command.split("|"), *_ARGUMENTS.get(command, "").split()]
    return words if command in _KEYLESS else [*words, key]


class Health:
    """Checks a server; `served` are the subscriptions that the file has, None if that is not known."""

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        names: Names,
        served: Collection[SubscriptionName] | None,
    ) -> None:
        self._address, self._names, self._served = address, names, served
        self._finder = make_finder(address, names)
        self._connection = Connection(address, credentials, self._finder, lost=lambda _: None, resends=False)
        self._registry = Registry(self._connection, names)

    async def check(self) -> list[HealthResult]:
        """Return the results; raise BackendUnavailable when the server cannot be reached."""
        found: list[HealthResult] = []
        try:
            await self._connection.open()
            host, port, path = self._connection.place
            server = await ask(self._connection, replace(self._address, host=host, port=port, path=path))
            found += check(server)
            topology = Topology(self._connection, server, self._finder)
            found += await topology.check()
            found.append(await self._rights())
            if not found[-1].weakens:
                found += await self._content(topology)
        except ClusterFound:
            raise
        except BackendError as error:
            if isinstance(error, BackendUnavailable) and not isinstance(error, ServerNotReady):
                raise
            found.append(self._refusal(error))
        finally:
            await self._connection.close()
        return found

    def _refusal(self, error: BackendError) -> HealthResult:
        denied = isinstance(error, ServerError) and error.code == "NOPERM"
        return HealthResult(
            HealthCheck.REFUSED,
            Severity.ERROR,
            str(error),
            "nothing can be published or handled until that is fixed",
            self._allow if denied else "",
        )

    async def _rights(self) -> HealthResult:
        patterns, commands = await lacking(self._connection, self._names, replicas=self._address.replicas)
        if not patterns and not commands:
            return HealthResult(HealthCheck.RIGHTS, Severity.OK, "this user has all rights that are needed")
        what = f"touch the keys {', '.join(patterns)}" if patterns else f"run {', '.join(commands)}"
        return HealthResult(
            HealthCheck.RIGHTS,
            Severity.ERROR,
            f"this user may not {what}",
            "each operation that needs it fails, and the messages wait",
            self._allow,
        )

    @property
    def _allow(self) -> str:
        """The command that gives a user all rights that are needed."""
        return f"ACL SETUSER USER {' '.join(rules(self._names, replicas=self._address.replicas))}"

    async def _content(self, topology: Topology) -> list[HealthResult]:
        keys = await self._registry.keys()
        subscriptions = [(pattern, group) for pattern, group, _ in await self._registry.subscriptions()]
        statuses = await self._registry.status()
        consumed = PatternIndex(subscriptions)
        unread = [key for key in keys if not consumed.match(key)]
        lengths = [(key, self._connection.send("XLEN", self._names.stream(key))) for key in unread]
        counts = {key: await length for key, length in lengths}
        return [
            *await self._failover_time(topology, keys, subscriptions),
            *orphaned_subscriptions(statuses, self._served),
            *unread_keys(counts, self._served),
            *await self._streams(keys, subscriptions),
            *await self._changes(keys, subscriptions),
        ]

    async def _failover_time(
        self, topology: Topology, keys: Sequence[str], subscriptions: Sequence[SubscriptionName]
    ) -> list[HealthResult]:
        """Return a result if leases of consumers end before a failover begins."""
        if not self._finder.follows:
            return []
        asked = [
            self._connection.send("XINFO", "CONSUMERS", self._names.stream(key), group_name(pattern, group))
            for pattern, group in subscriptions
            for key in self._registry.matching(pattern, keys)
        ][:_CONSUMERS]
        leases: list[float] = []
        for answer in asked:
            with suppress(ServerError):  # the group does not exist yet
                leases += [lease for row in await answer if (lease := lease_of(_pairs(row)["name"]))]
        return await topology.failover_time(min(leases, default=0.0))

    async def _changes(
        self, keys: Sequence[str], subscriptions: Sequence[SubscriptionName]
    ) -> list[HealthResult]:
        """Return results for what workers saw other programs do to the groups of these subscriptions."""
        ours = {
            (self._names.stream(key), group_name(pattern, group)): (f"{pattern}/{group}", key)
            for pattern, group in subscriptions
            for key in self._registry.matching(pattern, keys)
        }
        changes = await GroupChanges(self._connection, self._names).read()
        return [
            _changed(*ours[change.stream, change.group], change, messages)
            for change, messages in changes
            if (change.stream, change.group) in ours
        ]

    async def _streams(
        self, keys: Sequence[str], subscriptions: Sequence[SubscriptionName]
    ) -> list[HealthResult]:
        """Return results for streams that other programs trimmed, or whose ids are from the future."""
        found: list[HealthResult] = []
        now = int((await self._connection.send("TIME"))[0])
        for chunk in _chunks(keys):
            asked = [
                (
                    key,
                    self._connection.run(STREAM, (stream,)),
                    self._connection.send("XINFO", "GROUPS", stream),
                )
                for key in chunk
                for stream in [self._names.stream(key)]
            ]
            for key, about, rows in asked:
                try:
                    stream, groups = _pairs(await about), [_pairs(row) for row in await rows]
                except ServerError:
                    continue  # it is recorded and does not exist
                found += _ahead(key, self._names.stream(key), stream["last-generated-id"], now)
                ours = {group_name(p, g): f"{p}/{g}" for p, g in subscriptions if matches(p, key)}
                for group in groups:
                    if name := ours.get(group["name"].decode("utf-8", "replace")):
                        found += await self._missing(key, name, stream, group)
        return found

    async def _missing(
        self, key: str, name: str, stream: Mapping[str, Any], group: Mapping[str, Any]
    ) -> list[HealthResult]:
        """Return a result if messages are gone that the group was not given, or has not settled."""
        undelivered = _undelivered(stream, group)
        first = stream["first-entry"][0] if stream["first-entry"] else b"+"
        before = b"+" if first == b"+" else b"(" + first
        args = (self._names.stream(key), group["name"], "-", before, _PENDING)
        pending = len(await self._connection.send("XPENDING", *args)) if group["pending"] else 0
        if not undelivered and not pending:
            return []
        parts = [
            f"{'some' if undelivered < 0 else f'{undelivered:,}'} that it was never given"
            if undelivered
            else "",
            f"{pending:,} that were in flight" if pending else "",
        ]
        return [
            HealthResult(
                HealthCheck.TRIMMED,
                Severity.ERROR,
                f"`{name}` lost messages of `{key}` to a deletion: {' and '.join(filter(None, parts))}",
                "they are gone, and only their publisher may still have them",
                "find the program that runs XTRIM, XDEL or XADD with MAXLEN, and use `retain` for history",
            )
        ]


def _ahead(key: str, stream: str, last: bytes, now: int) -> Iterator[HealthResult]:
    """Yield a result if the last id of a stream is from the future; `now` is the server's time."""
    if order(last)[0] / 1000 <= now + _AHEAD:
        return
    when = format_time(accepted_at(last))
    yield HealthResult(
        HealthCheck.AHEAD,
        Severity.WARNING,
        f"the last id of `{key}` is from the future: {last.decode()}, which is {when}",
        "the server counts on from that id, so ids no longer say when a message was accepted",
        f"find the program that runs XADD with an id of its own; when all is handled, DEL {stream} resets it",
    )


def _changed(name: str, key: str, change: Change, messages: int) -> HealthResult:
    if change.to:
        return HealthResult(
            HealthCheck.GROUP_CHANGED,
            Severity.WARNING,
            f"another client set the position of `{name}` on `{key}` from {change.before} to {change.to}",
            "messages in between were skipped, or came again",
            "find the program that runs XGROUP SETID; XRANGE shows what was skipped, if it is still there",
        )
    return HealthResult(
        HealthCheck.GROUP_CHANGED,
        Severity.INFO,
        f"messages of `{key}` that workers of `{name}` held were not pending any more: {messages:,}",
        "another worker settled them after their lease ran out, or another client ran XACK or XGROUP "
        "DELCONSUMER; then they are not delivered again",
        "the log of the workers says when; look for a client that runs one of these commands",
    )


def _undelivered(stream: Mapping[str, Any], group: Mapping[str, Any]) -> int:
    """Return how many messages were deleted that the group was not given, -1 when that is not known.

    Our own trimming deletes only what every group has settled, so never what a group was not given.
    """
    given = order(group["last-delivered-id"])
    first = order(stream["first-entry"][0]) if stream["first-entry"] else None
    if group["entries-read"] is not None and (first is None or given < first):
        # The group was given nothing of what is still there.
        return max(0, int(stream["entries-added"] - group["entries-read"] - stream["length"]))
    return -1 if order(stream["max-deleted-entry-id"]) > given else 0


def _pairs(flat: Sequence[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[first : first + _CHUNK] for first in range(0, len(keys), _CHUNK))
