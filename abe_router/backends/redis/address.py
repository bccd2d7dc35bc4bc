"""The address of a Redis server, of a cluster or of Sentinels, with the credentials, read from a URL."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from abe_router.backend.time_limit import PUBLISH_TIMEOUT, read_timeout
from abe_router.text import did_you_mean

#: Options of redis-py's URLs that configure its own objects. They are accepted and ignored, so that one URL
#: serves several programs.
_IGNORED = frozenset(
    {
        "protocol",
        "decode_responses",
        "encoding",
        "encoding_errors",
        "max_connections",
        "health_check_interval",
        "retry_on_timeout",
        "socket_keepalive",
        "socket_read_size",
        "timeout",
        "lib_name",
        "lib_version",
    }
)
#: The schemes of one server, and those of several with the port that each has by default.
_ALONE = ("redis", "rediss", "unix")
_SEVERAL = {"redis+cluster": 6379, "rediss+cluster": 6379, "redis+sentinel": 26379, "rediss+sentinel": 26379}
#: Most replicas that `replicas` may ask for.
_MOST_REPLICAS = 10
#: Most hash tags that `slots` may ask for. Each one that is in use takes two connections of a process.
MOST_SLOTS = 256
_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class Tls:
    """The options of an encrypted connection, named as in redis-py's URLs without their `ssl_`."""

    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str | None = None
    ca_path: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """Return the context; raise OSError when a file it names cannot be read."""
        context = ssl.create_default_context(cafile=self.ca_certs, capath=self.ca_path)
        context.check_hostname = self.check_hostname and self.cert_reqs != "none"
        context.verify_mode = _VERIFY[self.cert_reqs]
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile, self.password)
        return context


class Place(NamedTuple):
    """Where a server listens: at a host and a port, or at the path of a unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The name by which Sentinels know a primary, and the credentials for the Sentinels themselves."""

    name: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A Redis server, a database of it, and the credentials for it; times are in seconds.

    `path` is that of a unix socket; host and port mean nothing then. After a silence of `answer_timeout` the
    server counts as gone. An append may take `publish_timeout`. `credential_provider` names a class as
    `package.module:Class`. With a hash `tag` it may be a cluster node that serves the slot of the tag.

    `seeds` are nodes of a cluster, or with `sentinels` the Sentinels; host and port are then those of the
    first. A publish waits for so many `replicas`. With `slots`, the keys are spread over so many hash tags.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    connect_timeout: float = 5.0
    answer_timeout: float = 10.0
    publish_timeout: float = PUBLISH_TIMEOUT
    client_name: str = "abe-router"
    credential_provider: str = ""
    tag: str = ""
    seeds: tuple[Place, ...] = ()
    sentinels: Sentinels | None = None
    replicas: int = 0
    slots: int = 0

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL with the options of redis-py's `from_url`: of a server, a cluster or Sentinels.

        Raise ValueError when it is malformed; the error's text holds no credentials.
        """
        scheme = url.partition("://")[0]
        if scheme not in _ALONE and scheme not in _SEVERAL:
            raise ValueError(
                "it must begin with `redis://`, `rediss://`, `unix://`, `redis+cluster://` or `redis+sentinel://`"
            )
        parts, seeds = _split(url)
        options = _Options(dict(parse_qsl(parts.query, keep_blank_values=True)))
        username = options.text("username") or _unquoted(parts.username)
        password = options.text("password") or _unquoted(parts.password)
        sentinels = None
        if scheme.endswith("+sentinel"):
            sentinels, parts = _sentinels(parts, options)
        host, port, path, database = _location(parts)
        database = int(options.number("db", database))
        if scheme.endswith("+cluster") and database:
            raise ValueError("a cluster has only database 0")
        slots = options.count("slots", MOST_SLOTS)
        if slots and not (scheme.endswith("+cluster") or (scheme in ("redis", "rediss") and not database)):
            raise ValueError("option `slots` is for a cluster: begin the URL with `redis+cluster://`")
        encrypted = scheme.startswith("rediss")
        tls = options.tls()
        if not encrypted and tls != Tls():
            secure = scheme.replace("redis", "rediss") if scheme != "unix" else "rediss"
            raise ValueError(
                f"options that begin with `ssl_` need `{secure}://`: this connection is not encrypted"
            )
        address = cls(
            host=host,
            port=port,
            path=path,
            database=database,
            username=username,
            password=password,
            tls=tls if encrypted else None,
            connect_timeout=options.number("socket_connect_timeout", 5.0),
            answer_timeout=options.number("socket_timeout", 10.0),
            publish_timeout=read_timeout(options.text("timeout")),
            client_name=options.text("client_name") or "abe-router",
            credential_provider=options.provider(password),
            tag=options.text("hash_tag", listed=False) or "",
            seeds=seeds,
            sentinels=sentinels,
            replicas=options.count("replicas", _MOST_REPLICAS),
            slots=slots,
        )
        options.finish()
        return address

    @property
    def is_cluster(self) -> bool:
        """Whether it names a cluster."""
        return bool(self.seeds) and self.sentinels is None

    @property
    def place(self) -> Place:
        """Where the server listens, or the first of the nodes or Sentinels."""
        return Place(self.host, self.port, self.path)

    @property
    def public(self) -> str:
        """The URL without credentials and options, fit for a log."""
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        secure = "s" if self.tls else ""
        if not self.seeds:
            return f"redis{secure}://{self.place}/{self.database}"
        nodes = ",".join(map(str, self.seeds))
        if self.sentinels is None:
            return f"redis{secure}+cluster://{nodes}/"
        return f"redis{secure}+sentinel://{nodes}/{self.sentinels.name}/{self.database}"

    def as_cluster(self) -> Address:
        """Return the address of the cluster that has this server."""
        return replace(self, seeds=(self.place,))


class _Options:
    """The query of a URL. Each option is read once; those left in the end are unknown."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._left = dict(given)
        self._known: list[str] = sorted(_IGNORED)

    def text(self, name: str, *, listed: bool = True) -> str | None:
        """Return an option, None if it is missing or empty; a `listed` one may be suggested."""
        if listed:
            self._known.append(name)
        return self._left.pop(name, None) or None

    def number(self, name: str, default: float) -> float:
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"option `{name}` must be a number") from None
        if not 0 <= value < 1e9:
            raise ValueError(f"option `{name}` is out of range")
        return value

    def tls(self) -> Tls:
        verify = (self.text("ssl_cert_reqs") or "required").lower()
        if verify not in _VERIFY:
            raise ValueError("option `ssl_cert_reqs` must be `required`, `optional` or `none`")
        check = (self.text("ssl_check_hostname") or "true").lower()
        return Tls(
            cert_reqs=verify,
            check_hostname=check not in ("0", "f", "false", "n", "no"),
            ca_certs=self.text("ssl_ca_certs"),
            ca_path=self.text("ssl_ca_path"),
            certfile=self.text("ssl_certfile"),
            keyfile=self.text("ssl_keyfile"),
            password=self.text("ssl_password"),
        )

    def provider(self, password: str | None) -> str:
        """Return the path of the credential provider, empty if there is none."""
        path = self.text("credential_provider") or ""
        if path and not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", path):
            raise ValueError("option `credential_provider` must be like `package.module:Class`")
        if path and password:
            raise ValueError("a password and `credential_provider` exclude each other")
        return path

    def count(self, name: str, most: int) -> int:
        """Return an option that is a whole number up to `most`, 0 if it is missing."""
        text = self.text(name) or "0"
        if not text.isdecimal() or int(text) > most:
            raise ValueError(f"option `{name}` must be a number up to {most}")
        return int(text)

    def finish(self) -> None:
        """Raise ValueError when an unknown option is left."""
        for name in self._left.keys() - _IGNORED:
            if "@" in name or "@" in self._left[name]:  # the rest of a password
                raise ValueError("a `?` in the user name or password must be written as `%3F`")
            hint = did_you_mean(name, self._known)
            raise ValueError(f"unknown option `{name[:40]}`{'; ' if hint else ''}{hint}")


def _split(url: str) -> tuple[SplitResult, tuple[Place, ...]]:
    """Return the parts of a URL, and the nodes of one that may name several; the parts are of the first."""
    scheme, _, rest = url.partition("://")
    if scheme not in _SEVERAL:
        return urlsplit(url), ()
    end = min((found for mark in "/?#" if (found := rest.find(mark)) >= 0), default=len(rest))
    user, at, nodes = rest[:end].rpartition("@")
    hosts = [host for host in nodes.split(",") if host]
    if not hosts:
        raise ValueError(f"the hosts are missing, as in `{scheme}://host-1,host-2,host-3/`")
    alone = "rediss" if scheme.startswith("rediss") else "redis"
    default = _SEVERAL[scheme]
    seeds = [Place(*_location(urlsplit(f"{alone}://{host}"), default)[:2]) for host in hosts]
    first = hosts[0] if urlsplit(f"{alone}://{hosts[0]}").port else f"{hosts[0]}:{default}"
    return urlsplit(f"{alone}://{user}{at}{first}{rest[end:]}"), tuple(dict.fromkeys(seeds))


def _sentinels(parts: SplitResult, options: _Options) -> tuple[Sentinels, SplitResult]:
    """Return what the path and the options say of Sentinels, and the parts without it."""
    name, _, database = unquote(parts.path).strip("/").partition("/")
    if not name:
        raise ValueError(
            "the name of the primary is missing, as in `redis+sentinel://host-1,host-2,host-3/NAME`"
        )
    username, password = options.text("sentinel_username"), options.text("sentinel_password")
    if username and not password:
        raise ValueError("option `sentinel_username` needs `sentinel_password`")
    return Sentinels(name, username, password), parts._replace(path=f"/{database}")


def _location(parts: SplitResult, default: int = 6379) -> tuple[str, int, str, int]:
    """Return host, port, socket path and database."""
    path = unquote(parts.path)
    if parts.scheme == "unix":
        if not path:
            raise ValueError("the path of the socket is missing, as in `unix:///run/redis.sock`")
        return "localhost", 0, path, 0
    try:
        port = parts.port if parts.port is not None else default
    except ValueError:
        raise ValueError("the port must be a number below 65536") from None
    database = path.strip("/")
    if database and not database.isdecimal():
        raise ValueError("the path must be the number of a database, as in `redis://localhost:6379/0`")
    return unquote(parts.hostname or "localhost"), port, "", int(database or 0)


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None
