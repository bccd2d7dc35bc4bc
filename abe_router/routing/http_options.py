"""The option `http` of the routes file: where the HTTP server listens, and what a token allows."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

#: Where the server listens by default.
DEFAULT_LISTEN = "127.0.0.1:8470"
#: The form of an address, as a regular expression that Python and ECMA-262 read alike.
ADDRESS_PATTERN = r"^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"
#: The form of the name of a host, with an optional `*.` at the start.
HOST_PATTERN = r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
#: The form of an origin, as a browser sends it.
ORIGIN_PATTERN = r"^https?://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$"
#: The form of a SHA-256 hash.
DIGEST_PATTERN = "^[0-9a-f]{64}$"
#: The form of the name of a token.
NAME_PATTERN = "^[A-Za-z0-9_.@-]{1,64}$"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host, by name or by IP address, and a port. Port 0 is any free port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of the same machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """A token: its hash, or the file that has the token or its hash, the roles and the patterns of keys."""

    name: str
    sha256: str | None
    file: Path | None
    roles: tuple[str, ...]
    keys: tuple[str, ...] = ("#",)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """The HTTP server of a file.

    `listen` is the address of the API, and `probes` that of a second listener with the probes and the
    metrics alone. `hosts` are the names under which clients reach the server, besides loopback names and IP
    addresses. `origins` are the other origins whose pages may send requests that change something.
    `republish` allows callers to change dead letters and publish them again.
    """

    listen: ListenAddress
    probes: ListenAddress | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tokens: tuple[TokenOptions, ...] = ()
    republish: bool = False


def parse_address(text: str) -> ListenAddress:
    """Return the address of a text such as `127.0.0.1:8470` or `[::1]:8470`; raise ValueError."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(ADDRESS_PATTERN, text) or int(port) > 65_535:
        raise ValueError(f"`{text}` is not an address with a port, such as {DEFAULT_LISTEN}")
    if host.startswith("["):
        host = host[1:-1]
        ipaddress.IPv6Address(host)
    return ListenAddress(host, int(port))


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, or a name that stands for one."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
