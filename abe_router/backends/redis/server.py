"""The settings and the state of a Redis server, and what of them weakens the promise."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from abe_router.backend import HealthCheck, HealthResult
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.protocol import ServerError
from abe_router.diagnostic import Severity

_SECTIONS = ("server", "clients", "memory", "persistence", "replication", "cluster")
_SETTINGS = (
    "appendfsync",
    "bind",
    "cluster-node-timeout",
    "cluster-require-full-coverage",
    "min-replicas-to-write",
    "protected-mode",
    "save",
)
#: How many round trips are measured.
_TRIPS = 5
#: The share of the memory above which it counts as nearly full.
_FULL = 0.9
#: How far, in bytes, a replica may be behind.
_BEHIND = 10 * 1024 * 1024
#: A difference of clocks, and a round trip, that are worth a warning, in seconds.
_APART, _SLOW = 2.0, 0.1
#: The lists of the releases, with the security flaws that each of them fixes.
_RELEASES = {
    "Redis": "https://github.com/redis/redis/releases",
    "Valkey": "https://github.com/valkey-io/valkey/releases",
}
_ERROR, _WARNING, _INFO, _OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK


@dataclass(frozen=True, slots=True)
class Server:
    """The answers of a server; times are in seconds.

    `info` is empty and `config` None when this user may not see them. `ahead` is how far its clock is
    ahead of ours.
    """

    address: Address
    info: Mapping[str, str]
    config: Mapping[str, str] | None
    ahead: float
    round_trip: float

    @property
    def is_local(self) -> bool:
        """Whether what we send stays on this machine."""
        return bool(self.address.path) or is_loopback(self.address.host)

    @property
    def binds_beyond_loopback(self) -> bool:
        """Whether it listens where other machines may come from; False when that cannot be seen."""
        bound = (self.config or {}).get("bind", "127.0.0.1").split()
        return not bound or not all(is_loopback(word.lstrip("-")) for word in bound)

    @property
    def version(self) -> str:
        """Its version: of Valkey its own one, not that of the Redis it stands in for."""
        return self.info.get("valkey_version") or self.info.get("redis_version", "")

    @property
    def is_valkey(self) -> bool:
        """Whether it is Valkey."""
        return "valkey_version" in self.info

    @property
    def replicas(self) -> list[int]:
        """How many bytes each connected replica lacks, the closest one first."""
        rows = [value for name, value in self.info.items() if re.fullmatch(r"slave\d+", name)]
        fields = [dict(part.partition("=")[::2] for part in row.split(",")) for row in rows]
        written = self.number("master_repl_offset")
        online = [each for each in fields if each.get("state") == "online"]
        return sorted(max(0, written - int(each.get("offset") or 0)) for each in online)

    def number(self, field: str) -> int:
        """Return a number of `info`, 0 when it is not there."""
        text = self.info.get(field, "")
        return int(text) if text.isdecimal() else 0


async def ask(connection: Connection, address: Address) -> Server:
    """Ask the server; raise BackendUnavailable when it cannot be reached."""
    trips, leads = [], []
    for _ in range(_TRIPS):
        sent, began = time.time(), time.perf_counter()
        seconds, micros = await connection.send("TIME")  # a PING is refused where nothing may be written
        trips.append(time.perf_counter() - began)
        leads.append(int(seconds) + int(micros) / 1e6 - (sent + trips[-1] / 2))
    info = await _unless_refused(connection.send("INFO", *_SECTIONS))
    config = await _unless_refused(connection.send("CONFIG", "GET", *_SETTINGS))
    known = fields_of(info) if info else {}
    settings = None if config is None else _pairs(config)
    return Server(address, known, settings, median(leads), median(trips))


async def _unless_refused(answer: Awaitable[Any]) -> Any:
    """Return an answer, None when the server refuses it."""
    try:
        return await answer
    except ServerError:
        return None


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its name alone; names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fields_of(reply: bytes) -> dict[str, str]:
    """Return the fields of an answer to INFO or CLUSTER INFO."""
    lines = reply.decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def _pairs(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode("utf-8", "replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def check(server: Server) -> Iterator[HealthResult]:
    """Yield the results; one of them says what this user may not see."""
    yield from _sight(server)
    if server.info:
        yield from _persistence(server)
        yield from _memory(server)
        yield from _replication(server)
        yield from _version(server)
    yield from _access(server)
    yield from _time(server)


def _sight(server: Server) -> Iterator[HealthResult]:
    if not server.info:
        yield HealthResult(
            HealthCheck.UNSEEN,
            _WARNING,
            "this user may not run INFO",
            "whether the server keeps what it accepts cannot be seen",
            "ask as another user, or allow it: ACL SETUSER USER +info",
        )
    if server.config is None:
        yield HealthResult(
            HealthCheck.UNSEEN,
            _INFO,
            "this user may not run CONFIG GET",
            "how often writes are synced, and to whom the port is open, cannot be seen",
            "ask as another user, or allow it: ACL SETUSER USER +config|get",
        )


def _persistence(server: Server) -> Iterator[HealthResult]:
    config, info = server.config or {}, server.info
    if info.get("aof_enabled") == "1":
        yield HealthResult(HealthCheck.PERSISTENCE, _OK, "every write goes to the append-only file")
        yield from _sync(config.get("appendfsync"))
        if info.get("aof_last_write_status", "ok") != "ok":
            yield _failing("the last write to the append-only file failed", _ERROR)
        if info.get("aof_last_bgrewrite_status", "ok") != "ok":
            yield _failing("the last rewrite of the append-only file failed, so it grows", _WARNING)
    elif config.get("save") == "":
        yield HealthResult(
            HealthCheck.PERSISTENCE,
            _ERROR,
            "the server writes nothing to its disk",
            "every message is lost when it stops",
            "CONFIG SET appendonly yes, and `appendonly yes` in redis.conf",
        )
    else:
        yield HealthResult(
            HealthCheck.SNAPSHOTS,
            _ERROR,
            "the server writes snapshots alone, if any"
            if server.config is None
            else "only snapshots are written",
            "what was accepted since the last one is lost when the server crashes",
            "CONFIG SET appendonly yes, and `appendonly yes` in redis.conf",
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield _failing("the last snapshot failed", _ERROR)


def _sync(policy: str | None) -> Iterator[HealthResult]:
    if policy == "always":
        yield HealthResult(HealthCheck.SYNC, _OK, "each write is synced before it is answered")
    elif policy == "everysec":
        yield HealthResult(
            HealthCheck.SYNC,
            _INFO,
            "writes are synced every second",
            "a power failure may lose the last second; a crash of the server alone loses nothing",
            "CONFIG SET appendfsync always, if that second matters more than speed",
        )
    elif policy is not None:
        yield HealthResult(
            HealthCheck.SYNC,
            _WARNING,
            "writes are synced when the operating system decides",
            "a power failure may lose what was accepted in the last half minute",
            "CONFIG SET appendfsync everysec",
        )


def _failing(message: str, severity: Severity) -> HealthResult:
    return HealthResult(
        HealthCheck.WRITES_FAIL,
        severity,
        message,
        "what is accepted now may not be there after a restart, or nothing is accepted at all",
        "check the space and the rights on the server's disk, and its log",
    )


def _memory(server: Server) -> Iterator[HealthResult]:
    policy, limit = server.info.get("maxmemory_policy", "noeviction"), server.number("maxmemory")
    if policy == "noeviction":
        yield HealthResult(HealthCheck.EVICTION, _OK, "the server evicts nothing")
    elif policy.startswith("volatile-"):
        # Of our keys only rates and remembered ids have a time to live.
        yield HealthResult(HealthCheck.EVICTION, _OK, f"no message is evicted by `{policy}`")
    else:
        yield HealthResult(
            HealthCheck.EVICTION,
            _ERROR if limit else _WARNING,
            f"the server evicts keys when its memory is full (`{policy}`)",
            "with an evicted stream all its messages are lost"
            + ("" if limit else "; for now there is no limit of memory"),
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        )
    capacity = limit or server.number("total_system_memory")
    if capacity and server.number("used_memory") > _FULL * capacity:
        used = server.number("used_memory") / capacity
        yield HealthResult(
            HealthCheck.MEMORY,
            _WARNING,
            f"{used:.0%} of the memory that the server may use is taken",
            "when it is full nothing can be published; with no limit the system may end the server",
            "raise maxmemory, or find unhandled messages with `abe-router status`",
        )


def _replication(server: Server) -> Iterator[HealthResult]:
    info = server.info
    if info.get("role") == "slave":
        yield HealthResult(
            HealthCheck.REPLICA,
            _ERROR,
            "the server is a replica, which may only be read",
            "nothing can be published or handled here until it is promoted",
            f"give the URL of its primary: {info.get('master_host', '')}:{info.get('master_port', '')}",
        )
        return
    replicas, wanted = server.number("connected_slaves"), server.address.replicas
    least, behind = (server.config or {}).get("min-replicas-to-write"), server.replicas
    if wanted > len(behind):
        yield HealthResult(
            HealthCheck.REPLICAS,
            _ERROR,
            f"each publish waits for {wanted} replicas, and {len(behind)} are connected",
            "each publish raises an error, and the message may be stored nevertheless",
            "connect replicas, or lower `replicas` in the URL",
        )
    elif behind and behind[max(0, wanted - 1)] > _BEHIND:
        yield HealthResult(
            HealthCheck.REPLICAS,
            _WARNING,
            f"a replica lacks {behind[max(0, wanted - 1)]:,} bytes of what the server has written",
            "a failover loses that much, and a publish that waits for replicas takes long",
            "check the network and the disk of the replica, and its log",
        )
    if wanted:
        yield HealthResult(HealthCheck.FAILOVER, _OK, f"each publish waits for {wanted} replicas")
    elif replicas and least == "0":
        lacks = f"; the closest lacks {behind[0]:,} bytes now" if behind else ""
        yield HealthResult(
            HealthCheck.FAILOVER,
            _WARNING,
            f"the server has {replicas} replicas and does not wait for them{lacks}",
            "a failover loses what they had not received yet, acks too; the more they lag, the more it loses",
            "add `?replicas=1` to the URL; CONFIG SET min-replicas-to-write 1 only narrows the window",
        )


def _version(server: Server) -> Iterator[HealthResult]:
    name = "Valkey" if server.is_valkey else "Redis"
    yield HealthResult(
        HealthCheck.SERVER_VERSION,
        _INFO,
        f"the server is {name} {server.version}",
        hint=f"the flaws that later releases fix are listed at {_RELEASES[name]}",
    )


def _access(server: Server) -> Iterator[HealthResult]:
    tls = server.address.tls
    if tls is None and not server.is_local:
        yield HealthResult(
            HealthCheck.PLAIN_TEXT,
            _WARNING,
            f"the connection to `{server.address.host}` is not encrypted",
            "payloads and the password can be read and changed in transit",
            "rediss:// in the URL, and `tls-port` in redis.conf",
        )
    elif tls is not None and tls.cert_reqs != "required":
        yield HealthResult(
            HealthCheck.PLAIN_TEXT,
            _WARNING,
            "the certificate of the server is not verified",
            "an attacker in between can impersonate the server",
            "leave `ssl_cert_reqs` out of the URL, and name `ssl_ca_certs`",
        )
    elif tls is not None and not tls.check_hostname:
        yield HealthResult(
            HealthCheck.PLAIN_TEXT,
            _WARNING,
            "the name in the certificate of the server is not verified (`ssl_check_hostname=false`)",
            "any server with a certificate of the same authority can impersonate the server",
            "leave `ssl_check_hostname` out of the URL, and connect by a name of the certificate",
        )
    unprotected = server.binds_beyond_loopback and (server.config or {}).get("protected-mode") == "no"
    anonymous = not (server.address.password or server.address.credential_provider)
    if anonymous and (unprotected or not server.is_local):
        yield HealthResult(
            HealthCheck.OPEN_TO_ALL,
            _WARNING,
            "there is no password, so every client of the port has all rights",
            "messages can be read, forged and deleted, and often the machine can be taken over",
            "`requirepass` or an ACL user, with the password in the URL",
        )


def _time(server: Server) -> Iterator[HealthResult]:
    if abs(server.ahead) > _APART:
        which = "ahead of" if server.ahead > 0 else "behind"
        yield HealthResult(
            HealthCheck.CLOCK,
            _WARNING,
            f"the server's clock is {abs(server.ahead):,.0f} s {which} ours",
            "leases and delays follow the server's clock, and end early or late when it is corrected",
            "run an NTP client on both machines",
        )
    if server.round_trip > _SLOW:
        yield HealthResult(
            HealthCheck.SLOW,
            _WARNING,
            f"a round trip takes {server.round_trip * 1000:,.0f} ms",
            "leases are renewed and acks stored that much later, so short leases may be lost",
            "run the router near the server, and set `lease` to at least ten times that",
        )
