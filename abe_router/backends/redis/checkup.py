"""What of a Redis server's own settings and state weakens the promise."""

from __future__ import annotations

from collections.abc import Iterator

from abe_router.backend import HealthCheck, HealthResult
from abe_router.backends.redis.flaw import flaws
from abe_router.backends.redis.server import Server
from abe_router.diagnostic import Severity

_ERROR, _WARNING, _INFO, _OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
#: The share of the memory from which it counts as nearly full.
_FULL = 0.9
#: A difference of clocks, and a round trip, that are worth telling, in seconds.
_APART, _SLOW = 2.0, 0.1


def check(server: Server) -> Iterator[HealthResult]:
    """Yield what was found; what cannot be seen is passed over, but for saying so."""
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
            "a loss of power may lose the last second; a crash of the server alone loses nothing",
            "CONFIG SET appendfsync always, if that second matters more than speed",
        )
    elif policy is not None:
        yield HealthResult(
            HealthCheck.SYNC,
            _WARNING,
            "writes are synced when the operating system pleases",
            "a loss of power may lose what was accepted in the last half minute",
            "CONFIG SET appendfsync everysec",
        )


def _failing(message: str, severity: Severity) -> HealthResult:
    return HealthResult(
        HealthCheck.WRITES_FAIL,
        severity,
        message,
        "what is accepted now may not be there after a restart, or nothing is accepted at all",
        "look for space and rights on the server's disk, and into its log",
    )


def _memory(server: Server) -> Iterator[HealthResult]:
    policy, limit = server.info.get("maxmemory_policy", "noeviction"), server.number("maxmemory")
    if policy == "noeviction":
        yield HealthResult(HealthCheck.EVICTION, _OK, "the server evicts nothing")
    elif policy.startswith("volatile-"):
        # Of ours only the state of rates has a time to live.
        yield HealthResult(HealthCheck.EVICTION, _OK, f"no message is evicted by `{policy}`")
    else:
        yield HealthResult(
            HealthCheck.EVICTION,
            _ERROR if limit else _WARNING,
            f"the server evicts keys when its memory is full (`{policy}`)",
            "a stream that is evicted takes its messages along"
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
            "raise maxmemory, or look in `abe-router status` for what nobody handles",
        )


def _replication(server: Server) -> Iterator[HealthResult]:
    info = server.info
    if info.get("role") == "slave":
        yield HealthResult(
            HealthCheck.REPLICA,
            _ERROR,
            "the server is a replica, which may only be read",
            "nothing can be published or handled here until it is promoted",
            f"name its primary: {info.get('master_host', '')}:{info.get('master_port', '')}",
        )
        return
    replicas, least = server.number("connected_slaves"), (server.config or {}).get("min-replicas-to-write")
    if replicas and least == "0":
        yield HealthResult(
            HealthCheck.FAILOVER,
            _WARNING,
            f"the server has {replicas} replicas and does not wait for them",
            "a failover loses what they had not got yet, and brings acks back; more the further they lag",
            "CONFIG SET min-replicas-to-write 1, which narrows the window and does not close it",
        )


def _version(server: Server) -> Iterator[HealthResult]:
    config = server.config or {}
    name = f"{'Valkey' if server.is_valkey else 'Redis'} {server.version}"
    found = list(
        flaws(
            server.version,
            valkey=server.is_valkey,
            tls=server.address.tls is not None,
            preamble=config.get("aof-use-rdb-preamble", "yes") == "yes",
        )
    )
    if found:
        yield HealthResult(
            HealthCheck.SERVER_VERSION,
            _WARNING,
            f"{name} is known for {', '.join(flaw.name for flaw in found)}",
            "; ".join(flaw.effect for flaw in found),
            "upgrade to the newest release of its branch, or of a later one",
        )
    else:
        yield HealthResult(HealthCheck.SERVER_VERSION, _OK, f"{name} has no flaw that we know of")


def _access(server: Server) -> Iterator[HealthResult]:
    tls = server.address.tls
    if tls is None and not server.is_local:
        yield HealthResult(
            HealthCheck.PLAIN_TEXT,
            _WARNING,
            f"what goes to `{server.address.host}` is not encrypted",
            "payloads and the password can be read and changed on the way",
            "rediss:// in the URL, and `tls-port` in redis.conf",
        )
    elif tls is not None and tls.cert_reqs != "required":
        yield HealthResult(
            HealthCheck.PLAIN_TEXT,
            _WARNING,
            "the certificate of the server is not looked at",
            "anyone on the way may pass for the server",
            "leave `ssl_cert_reqs` out of the URL, and name `ssl_ca_certs`",
        )
    unprotected = server.binds_beyond_loopback and (server.config or {}).get("protected-mode") == "no"
    if not server.address.password and (unprotected or not server.is_local):
        yield HealthResult(
            HealthCheck.OPEN_TO_ALL,
            _WARNING,
            "whoever reaches the port may do everything: there is no password",
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
            "leases and delays run by the server's: when it is set right they end early, or late, by as much",
            "run an NTP client on both machines",
        )
    if server.round_trip > _SLOW:
        yield HealthResult(
            HealthCheck.SLOW,
            _WARNING,
            f"a round trip takes {server.round_trip * 1000:,.0f} ms",
            "leases are renewed, and acks kept, that much later: short leases may be lost",
            "run the router near the server, and give `lease` ten times that at least",
        )
