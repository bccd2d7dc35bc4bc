"""What weakens the promise on a Redis server; to find out writes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from abe_router.backend import (
    HealthCheck,
    HealthResult,
    SubscriptionName,
    orphaned_subscriptions,
    unread_keys,
)
from abe_router.backends.redis import rights
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.entry import order
from abe_router.backends.redis.names import Names, group_name
from abe_router.backends.redis.protocol import ServerError, ServerNotReady
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.server import ask, check
from abe_router.backends.redis.stats import Stats
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.pattern import matches

#: Streams asked for at a time, and pending entries counted of a group.
_CHUNK, _PENDING = 50, 1000
_UNSEEN = HealthResult(
    HealthCheck.UNSEEN,
    Severity.INFO,
    "this user may not run XINFO STREAM",
    "whether other programs deleted unread messages cannot be seen",
    "ask as another user, or allow it: ACL SETUSER USER +xinfo|stream",
)


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
        self._connection = Connection(address, credentials, lost=lambda _: None)
        self._registry = Registry(self._connection, names)

    async def check(self) -> list[HealthResult]:
        """Return the results; raise BackendUnavailable when the server cannot be reached."""
        found: list[HealthResult] = []
        try:
            await self._connection.open()
            found += check(await ask(self._connection, self._address))
            found.append(await self._rights())
            if not found[-1].weakens:
                found += await self._content()
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
            f"ACL SETUSER USER {' '.join(rights.rules(self._names))}" if denied else "",
        )

    async def _rights(self) -> HealthResult:
        patterns, commands = await rights.lacking(self._connection, self._names)
        if not patterns and not commands:
            return HealthResult(HealthCheck.RIGHTS, Severity.OK, "this user has all rights that are needed")
        what = f"touch the keys {', '.join(patterns)}" if patterns else f"run {', '.join(commands)}"
        return HealthResult(
            HealthCheck.RIGHTS,
            Severity.ERROR,
            f"this user may not {what}",
            "each operation that needs it fails, and the messages wait",
            f"ACL SETUSER USER {' '.join(rights.rules(self._names))}",
        )

    async def _content(self) -> list[HealthResult]:
        keys = await self._registry.keys()
        subscriptions = [(pattern, group) for pattern, group, _ in await self._registry.subscriptions()]
        statuses = await Stats(self._connection, self._names, self._registry).status()
        unread = [key for key in keys if not any(matches(pattern, key) for pattern, _ in subscriptions)]
        lengths = [(key, self._connection.send("XLEN", self._names.stream(key))) for key in unread]
        counts = {key: await length for key, length in lengths}
        return [
            *orphaned_subscriptions(statuses, self._served),
            *unread_keys(counts),
            *await self._trimmed(keys, subscriptions),
        ]

    async def _trimmed(
        self, keys: Sequence[str], subscriptions: Sequence[SubscriptionName]
    ) -> list[HealthResult]:
        """Return a result for each group of ours that lost messages to a deletion by another program."""
        found: list[HealthResult] = []
        for chunk in _chunks(keys):
            asked = [
                (
                    key,
                    self._connection.send("XINFO", "STREAM", stream),
                    self._connection.send("XINFO", "GROUPS", stream),
                )
                for key in chunk
                for stream in [self._names.stream(key)]
            ]
            for key, about, rows in asked:
                try:
                    stream, groups = _pairs(await about), [_pairs(row) for row in await rows]
                except ServerError as error:
                    if error.code == "NOPERM":
                        return [*found, _UNSEEN]
                    continue  # it is recorded and does not exist
                ours = {group_name(p, g): f"{p}/{g}" for p, g in subscriptions if matches(p, key)}
                for group in groups:
                    if name := ours.get(group["name"].decode()):
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
