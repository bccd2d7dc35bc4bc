"""A Redis Cluster of masters with a replica each, and a primary with a replica and Sentinels."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import redis
from redis import Redis

from abe_router.testing import RedisServer
from abe_router.testing.redis_server import free_port, server_program

T = TypeVar("T")

#: After this time without an answer a server counts as gone, in milliseconds.
DOWN_AFTER = 1000
_PATIENCE = 60.0
_OPTIONS = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


def until(what: Callable[[], T]) -> T:
    """Wait until a function returns something true, and return that; servers may refuse meanwhile."""
    patience = time.monotonic() + _PATIENCE
    while True:
        with suppress(redis.ConnectionError, redis.ResponseError):
            if found := what():
                return found
        if time.monotonic() > patience:
            raise RuntimeError("the servers do not get there")
        time.sleep(0.02)


def host_and_port(server: RedisServer) -> tuple[str, int]:
    """Return where a server listens."""
    host, _, port = server.url.removeprefix("redis://").removesuffix("/0").rpartition(":")
    return host, int(port)


def call(server: RedisServer, *command: Any) -> Any:
    """Return the reply of a server to one command."""
    with Redis.from_url(server.url, decode_responses=True, socket_timeout=10) as client:
        return client.execute_command(*command)


def has_replica(primary: RedisServer, behind: int = 0) -> bool:
    """Say whether a replica of a primary lacks at most so many bytes of what that has."""
    info = call(primary, "INFO", "replication")
    return info["role"] == "master" and any(
        value["state"] == "online" and value["offset"] >= info["master_repl_offset"] - behind
        for name, value in info.items()
        if name.startswith("slave") and isinstance(value, dict)
    )


class RedisCluster:
    """So many masters, each with a replica if wanted; a context manager."""

    def __init__(self, folder: Path, *, masters: int = 3, replicas: bool = True) -> None:
        self._folder, self._masters, self._count = folder, masters, masters * (2 if replicas else 1)
        self._stack = ExitStack()
        self.nodes: list[RedisServer] = []

    def __enter__(self) -> Self:
        buses = [free_port() for _ in range(self._count)]
        for number, bus in enumerate(buses):
            folder = self._folder / f"node-{number}"
            folder.mkdir(parents=True)
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), *_OPTIONS)
            server = RedisServer(folder, options=(*options, "--cluster-node-timeout", str(DOWN_AFTER)))
            self.nodes.append(self._stack.enter_context(server))
        bounds = [16384 * number // self._masters for number in range(self._masters + 1)]
        for number, (node, bus) in enumerate(zip(self.nodes, buses, strict=True)):
            call(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            call(self.nodes[0], "CLUSTER MEET", *host_and_port(node), bus)
            if number < self._masters:
                call(node, "CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for node in self.nodes[self._masters :]:
            master = self.id_of(self.nodes[self.nodes.index(node) - self._masters])
            until(partial(call, node, "CLUSTER REPLICATE", master))
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL of the cluster, with all nodes."""
        hosts = ",".join("{}:{}".format(*host_and_port(node)) for node in self.nodes)
        return f"redis+cluster://{hosts}/"

    @staticmethod
    def id_of(node: RedisServer) -> str:
        """Return the id of a node."""
        return str(call(node, "CLUSTER MYID"))

    def wait(self, behind: int = 0) -> None:
        """Wait until all nodes agree that all is well, and each master has its replica."""
        for node in self.nodes:
            until(partial(self._is_well, node))
        if self._count > self._masters:
            for slot in (0, 8000, 16383):
                until(partial(self._is_replicated, slot, behind))

    def _is_well(self, node: RedisServer) -> bool:
        info = call(node, "CLUSTER INFO")
        return info["cluster_state"] == "ok" and len(call(node, "CLUSTER NODES")) == self._count

    def _is_replicated(self, slot: int, behind: int) -> bool:
        return has_replica(self.owner(slot), behind)

    def owner(self, slot: int) -> RedisServer:
        """Return the node that serves a slot, by the view of a node that runs."""
        for node in self.nodes:
            with suppress(redis.ConnectionError, redis.ResponseError):
                rows = call(node, "CLUSTER", "SLOTS")  # as two words, its reply stays as it is
                place = next(first[:2] for low, high, first, *_ in rows if low <= slot <= high)
                return next(each for each in self.nodes if list(host_and_port(each)) == list(place))
        raise RuntimeError("no node answers")

    def moves_slots_at_once(self) -> bool:
        """Return whether the servers know CLUSTER MIGRATESLOTS."""
        return any("MIGRATESLOTS" in str(line) for line in call(self.nodes[0], "CLUSTER", "HELP"))

    def move(self, slot: int, *, pause: float = 0.0, at_once: bool = False) -> RedisServer:
        """Move a slot to the next master: at once, or key by key with a pause after each."""
        source = self.owner(slot)
        masters = list(dict.fromkeys(self.owner(each) for each in (0, 8000, 16383)))
        target = masters[(masters.index(source) + 1) % len(masters)]
        if at_once:
            call(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id_of(target))
            until(lambda: self.owner(slot) is target)
            return target
        call(target, "CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        call(source, "CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))
        while keys := call(source, "CLUSTER GETKEYSINSLOT", slot, 1):
            call(source, "MIGRATE", *host_and_port(target), "", 0, 5000, "KEYS", *keys)
            time.sleep(pause)
        for node in (target, source, *masters):
            call(node, "CLUSTER SETSLOT", slot, "NODE", self.id_of(target))
        return target


class RedisSentinels:
    """A primary, its replica and Sentinels that watch them as `main`; a context manager.

    `options` are those of both servers, `auth` is the password of the Sentinels. `tls` is a folder with
    `ca.pem`, `cert.pem` and `key.pem`: then all are named by ports that use TLS; the servers have others too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sentinels: int = 3,
        options: Sequence[str] = (),
        auth: str = "",
        tls: Path | None = None,
    ) -> None:
        self._folder, self._auth, self._options, self._tls = folder, auth, options, tls
        self._ports = [free_port() for _ in range(sentinels)]
        self._stack = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.servers: list[RedisServer] = []
        #: The ports by which the Sentinels name the servers.
        self._named: list[int] = []

    def __enter__(self) -> Self:
        for name in ("primary", "replica"):
            (self._folder / name).mkdir(parents=True)
            named = free_port()
            options = [*_OPTIONS, *self._options]
            if self._tls:
                options += [word for option in self._tls_options(named) for word in f"--{option}".split()]
            if self.servers:
                options += ["--replicaof", "127.0.0.1", str(self._named[0])]
            server = RedisServer(self._folder / name, durable=True, options=options)
            self._named.append(named if self._tls else host_and_port(server)[1])
            self.servers.append(self._stack.enter_context(server))
        until(lambda: has_replica(self.servers[0]))
        host, port = "127.0.0.1", self._named[0]
        for number in self._ports:
            folder = self._folder / f"sentinel-{number}"
            folder.mkdir()
            lines = (
                f'bind 127.0.0.1\ndir "{folder}"\nlogfile sentinel.log',
                *(("port 0", *self._tls_options(number)) if self._tls else (f"port {number}",)),
                f"sentinel monitor main {host} {port} {min(2, len(self._ports))}",
                f"sentinel down-after-milliseconds main {DOWN_AFTER}\nsentinel failover-timeout main 3000",
                f"requirepass {self._auth}\nsentinel sentinel-pass {self._auth}" if self._auth else "",
            )
            (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
            self._start(number)
        for number in self._ports:
            until(partial(self._knows_all, number))
        return self

    def __exit__(self, *_: object) -> None:
        for number in tuple(self._processes):
            self.kill(number)
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL with all Sentinels."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"redis{'s' if self._tls else ''}+sentinel://{hosts}/main"

    @property
    def ports(self) -> Sequence[int]:
        """The ports of the Sentinels."""
        return self._ports

    def ask(self, port: int, *command: Any) -> Any:
        """Return the reply of a Sentinel."""
        options: dict[str, Any] = {"password": self._auth or None, "decode_responses": True}
        if self._tls:
            options |= {"ssl": True, "ssl_ca_certs": f"{self._tls}/ca.pem"}
        with Redis("127.0.0.1", port, **options) as client:
            return client.execute_command(*command)

    def primary(self) -> RedisServer:
        """Return the server that the first Sentinel which runs names."""
        port = int(self.ask(next(iter(self._processes)), "SENTINEL GET-MASTER-ADDR-BY-NAME", "main")[1])
        return self.servers[self._named.index(port)]

    def kill(self, port: int) -> None:
        """Kill a Sentinel."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def wait(self, behind: int = 0) -> None:
        """Wait until the primary has its replica."""
        until(lambda: has_replica(self.primary(), behind))

    def restart(self, port: int) -> None:
        """Start a killed Sentinel, and wait until it knows the others."""
        self._start(port)
        until(lambda: self._knows_all(port))

    def _tls_options(self, port: int) -> tuple[str, ...]:
        return (
            f"tls-port {port}",
            f"tls-cert-file {self._tls}/cert.pem",
            f"tls-key-file {self._tls}/key.pem",
            f"tls-ca-cert-file {self._tls}/ca.pem",
            "tls-auth-clients no",
            "tls-replication yes",
        )

    def _start(self, port: int) -> None:
        conf = self._folder / f"sentinel-{port}" / "sentinel.conf"
        program = server_program()
        assert program, "no server is installed"
        self._processes[port] = subprocess.Popen([program, conf, "--sentinel"], stdout=subprocess.DEVNULL)

    def _knows_all(self, port: int) -> bool:
        (fields,) = self.ask(port, "SENTINEL MASTERS").values()
        return bool(fields["num-other-sentinels"] == len(self._ports) - 1 and fields["num-slaves"] == 1)
