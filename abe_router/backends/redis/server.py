"""What a Redis server says of itself."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from abe_router.backends.redis.address import Address
from abe_router.backends.redis.fault import ServerError
from abe_router.backends.redis.line import Line

_SECTIONS = ("server", "clients", "memory", "persistence", "replication", "cluster")
_SETTINGS = (
    "appendfsync",
    "aof-use-rdb-preamble",
    "bind",
    "min-replicas-to-write",
    "protected-mode",
    "save",
)
#: How many round trips are measured.
_TRIPS = 5


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

    def number(self, field: str) -> int:
        """Return a number of `info`, 0 when it is not there."""
        text = self.info.get(field, "")
        return int(text) if text.isdecimal() else 0


async def ask(line: Line, address: Address) -> Server:
    """Ask the server; raise BackendUnavailable when it cannot be reached."""
    trips, leads = [], []
    for _ in range(_TRIPS):
        sent, began = time.time(), time.perf_counter()
        seconds, micros = await line.send("TIME")  # a PING is refused where nothing may be written
        trips.append(time.perf_counter() - began)
        leads.append(int(seconds) + int(micros) / 1e6 - (sent + trips[-1] / 2))
    info = await _unless_refused(line.send("INFO", *_SECTIONS))
    config = await _unless_refused(line.send("CONFIG", "GET", *_SETTINGS))
    known = _fields(info.decode("utf-8", "replace")) if info else {}
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


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def _pairs(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode("utf-8", "replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))
