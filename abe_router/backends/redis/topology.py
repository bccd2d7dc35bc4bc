"""Checks a cluster or the Sentinels: what is covered, what they agree on, and how long a failover takes."""

from __future__ import annotations

from collections.abc import Iterator

from abe_router.backend import HealthCheck, HealthResult
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.finder import SLOTS, ClusterFinder, Finder, SentinelFinder
from abe_router.backends.redis.protocol import ServerError
from abe_router.backends.redis.server import Server, fields_of
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError
from abe_router.text import format_duration

#: Number of Sentinels with which a failover goes on when one of them is gone.
_ENOUGH = 3


class Topology:
    """What surrounds the server that was found: the other nodes of its cluster, or its Sentinels."""

    def __init__(self, connection: Connection, server: Server, finder: Finder) -> None:
        self._connection, self._server, self._finder = connection, server, finder

    async def check(self) -> list[HealthResult]:
        """Return the results; none for a server that stands alone."""
        if isinstance(self._finder, ClusterFinder):
            return [*await self._cluster(self._finder), *self._replicated()]
        if isinstance(self._finder, SentinelFinder):
            return [*await self._sentinels(self._finder), *self._replicated()]
        return []

    async def failover_time(self, lease: float) -> list[HealthResult]:
        """Return a result if a failover begins only when leases of `lease` seconds are over; 0 for none."""
        millis = 0
        if isinstance(self._finder, SentinelFinder):
            millis = await self._finder.down_after()
        elif self._server.config:
            millis = int(self._server.config.get("cluster-node-timeout") or 0)
        if not lease or millis < lease * 1000:
            return []
        setting = (
            "cluster-node-timeout" if isinstance(self._finder, ClusterFinder) else "down-after-milliseconds"
        )
        return [
            HealthResult(
                HealthCheck.FAILOVER_TIME,
                Severity.WARNING,
                f"a failover begins after {format_duration(millis / 1000)}, "
                f"and the shortest lease is {format_duration(lease)}",
                "leases end before another server takes over, so what runs then may run twice",
                f"lower `{setting}`, or set `lease` in the routes file to several times that",
            )
        ]

    async def _cluster(self, finder: ClusterFinder) -> list[HealthResult]:
        try:
            info = fields_of(await self._connection.send("CLUSTER", "INFO"))
        except ServerError:
            return [_unseen("CLUSTER INFO", "+cluster|info", "whether all slots are covered cannot be seen")]
        covered, masters = int(info["cluster_slots_ok"]), info["cluster_size"]
        if covered < SLOTS or info["cluster_state"] != "ok":
            whole = (self._server.config or {}).get("cluster-require-full-coverage") != "no"
            return [
                HealthResult(
                    HealthCheck.SLOTS,
                    Severity.ERROR,
                    f"{SLOTS - covered:,} of {SLOTS:,} slots are served by no node that runs",
                    "the whole cluster refuses commands until they are"
                    if whole
                    else "prefixes in these slots cannot be used; this one can",
                    "redis-cli --cluster check HOST:PORT, and start or replace the nodes that are gone",
                )
            ]
        place, slot = self._connection.place, finder.slot
        return [
            HealthResult(
                HealthCheck.SLOTS,
                Severity.OK,
                f"{place} serves slot {slot}; {masters} masters serve all slots",
            )
        ]

    async def _sentinels(self, finder: SentinelFinder) -> list[HealthResult]:
        views = await finder.views()
        primary = self._connection.place
        gone = [str(at) for at, view in views if isinstance(view, BackendError)]
        apart = [
            f"{at} names {view or 'none'}"
            for at, view in views
            if not isinstance(view, BackendError) and view != primary
        ]
        agree = len(views) - len(gone) - len(apart)
        return list(_sentinel_results(len(views), agree, gone, apart))

    def _replicated(self) -> Iterator[HealthResult]:
        if self._server.info.get("role") == "master" and not self._server.number("connected_slaves"):
            yield HealthResult(
                HealthCheck.REPLICAS,
                Severity.WARNING,
                f"{self._connection.place} has no replica",
                "when it fails, nothing can take over: what it keeps is unavailable until it is back",
                "add a replica",
            )


def _sentinel_results(count: int, agree: int, gone: list[str], apart: list[str]) -> Iterator[HealthResult]:
    if apart:
        yield HealthResult(
            HealthCheck.SENTINELS,
            Severity.ERROR if agree < 2 else Severity.WARNING,
            f"the Sentinels disagree on the primary: {', '.join(apart)}, and {agree} name this one",
            "two must agree before a client connects; a failover may be under way",
            "SENTINEL MASTER NAME on each; SENTINEL RESET NAME on one that watches another server",
        )
    if gone:
        yield HealthResult(
            HealthCheck.SENTINELS,
            Severity.ERROR if agree < 2 else Severity.WARNING,
            f"Sentinels cannot be reached: {', '.join(gone)}",
            "two must answer before a client connects, and most of them before there is a failover",
            "start them, or remove them with SENTINEL RESET NAME and from the URL",
        )
    if count < _ENOUGH:
        yield HealthResult(
            HealthCheck.SENTINELS,
            Severity.WARNING,
            f"there are {count} Sentinels",
            "when one is gone, the others have no majority for a failover",
            "run three or more, on different machines",
        )
    elif not apart and not gone:
        yield HealthResult(HealthCheck.SENTINELS, Severity.OK, f"{count} Sentinels agree on the primary")


def _unseen(command: str, right: str, what: str) -> HealthResult:
    return HealthResult(
        HealthCheck.UNSEEN,
        Severity.INFO,
        f"this user may not run {command}",
        what,
        f"ask as another user, or allow it: ACL SETUSER USER {right}",
    )
