"""HTTP: no request makes the server fail, whatever its path, query, headers and body are."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from urllib.parse import quote

from starlette.routing import Route

from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.http.access import digest
from abe_router.http.app import make_app
from abe_router.http.http_server import HttpServer
from abe_router.http.security import Security
from abe_router.http.site import Site
from abe_router.http.sources import OwnSource
from abe_router.routing.table import RouteTable
from fuzz.corpus import Corpus
from fuzz.grammar import json_value
from fuzz.mutate import ODD_BYTES, ODD_VALUES, mutate_bytes, mutate_value
from fuzz.target.target import Input, Target, demand

_TOKEN = "token-of-the-fuzz"  # noqa: S105  of no other server
_ROUTES = f"""
backend: memory://
http: {{listen: 127.0.0.1:0, republish: true, tokens: {{fuzz: {{sha256: {digest(_TOKEN)}, roles: admin}}}}}}
routes:
  orders.created: {{dedupe: 1h, consumers: {{billing: "os:getcwd"}}}}
  orders.#: {{consumers: {{audit: "os:getcwd"}}}}
"""
#: Values of parameters and parts of paths; `9` is repeated beyond what Python converts.
_VALUES = (
    *("1", "0", "-1", "9" * 5_000, "0" * 4_000 + "1", "1.5", "1e400", "nan", "inf", "1_0", "٣", " 1", ""),
    *("orders.created", "orders.#", "billing", "orders.created/billing", "#", "*", "a/b", "é", "\x00"),
    *(
        "2h",
        "9" * 30 + "d",
        "2026-11-26T13:30",
        "99999-01-01",
        "-inf",
        "/a=1",
        "/a=[",
        "=",
        "/0/~1=" + "9" * 900,
    ),
    *("orders.created/billing/1", "1-1", "9" * 25 + "-1", "1-" + "9" * 5_000, "x" * 2_000, "pause", "limit"),
)
#: What the parts of a path usually are.
_PARTS = {"key": "orders.created", "group": "billing", "action": "pause"}
_QUERIES = (
    *(
        "limit",
        "page",
        "base",
        "diff",
        "first",
        "since",
        "until",
        "sample",
        "where",
        "after",
        "pattern",
        "group",
    ),
    *("route", "kind", "key", "message_id", "revision", "why", "q", "state", "sort", "id", "payload", "dead"),
    *(
        "counts",
        "routes",
        "verbose",
        "notice",
        "back",
        "code",
        "file",
        "tag",
        "owner",
        "author",
        "action",
        "age",
    ),
)
_HEADERS = (
    *("Last-Event-ID", "Cookie", "Idempotency-Key", "Content-Length", "Content-Type", "Accept", "Expect"),
    *(
        "Abe-Header-A",
        "traceparent",
        "tracestate",
        "baggage",
        "ce-id",
        "ce-type",
        "ce-specversion",
        "ce-source",
    ),
    *("Origin", "Sec-Fetch-Site", "X-Forwarded-Proto", "Authorization", "Range", "If-None-Match", "Upgrade"),
    *("Transfer-Encoding", "Content-Encoding", "Connection", "Host"),
)
_FORM_TYPE = "application/x-www-form-urlencoded"
_TYPES = (
    *("application/json", "application/x-ndjson", "application/cloudevents+json"),
    *("application/cloudevents-batch+json", _FORM_TYPE, "text/plain", "", "a/b;charset=x"),
)
_EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "orders.created", "data": {"a": 1}}
_BODIES: tuple[object, ...] = (
    {"key": "orders.created", "payload": {"a": 1}, "headers": {"a": "b"}},
    {"route": "orders.created/billing", "action": "limit", "why": "x", "rate": 1.0, "seconds": 60},
    {"all": True, "first": 1, "dry_run": True, "why": "x", "since": 0, "until": 1e12, "kind": "failed"},
    {"ids": ["1"], "rate": 1, "stop_after": 1, "wait": True},
    {"payload": {"a": 1}, "headers": {}, "purge": True, "why": ""},
    _EVENT,
    [_EVENT, _EVENT],
)
_FORM = (
    *(
        "key",
        "json",
        "headers",
        "id",
        "do",
        "mode",
        "why",
        "purge",
        "p:/a",
        "n:/a",
        "j:/a/0",
        "x:",
        "token",
        "back",
    ),
    *("theme", "rate", "stop_after", "wait", "selection", "for", "action", "limit", "first"),
)
_ENDLESS = b"text/event-stream"


@cache
def _paths() -> list[tuple[str, str]]:
    """Return the method and the path of every endpoint and page."""
    nothing = OwnSource(RouteTable, lambda: make_backend("memory://"), started=bool, counters=lambda: None)
    routes = [each for each in make_app(Site(nothing, Security())).routes if isinstance(each, Route)]
    return [(method, route.path) for route in routes for method in sorted(route.methods or ())]


def _body(random: Random, corpus: Corpus) -> tuple[str, bytes]:
    """Return a body and the media type that it has most of the time."""
    kind = random.choice(_TYPES)
    choice = random.random()
    if kind == _FORM_TYPE:
        names = random.sample(_FORM, random.randrange(6))
        body = "&".join(f"{name}={quote(random.choice(_VALUES), safe='')}" for name in names).encode()
    else:
        value = mutate_value(random, random.choice((*_BODIES, *corpus.payloads)), (*ODD_VALUES, *_VALUES[:8]))
        if choice < 0.2:
            value = json_value(random)
        items = value if isinstance(value, list) and "ndjson" in kind else [value]
        body = b"\n".join(json.dumps(each).encode("utf-8", "surrogatepass") for each in items)
    if choice > 0.7:
        body = mutate_bytes(random, body, [body, *ODD_BYTES])
    if choice > 0.97:
        body = random.choice((b"[0,", b"[", b'{"a":', b"{}\n", b"9", b"a&", b"%41")) * random.choice(
            (999, 99_999)
        )
    return kind, body


class RequestTarget(Target):
    """Sends requests of an admin to a server of this process, each on a connection of its own."""

    name = "request"
    about = "no HTTP request is answered with 500 or ends in a traceback; an answer is at most a megabyte"
    short, least = 1_000, 100_000

    def open(self, folder: Path) -> None:
        """Start the server, with a dead letter and an edit to ask for."""
        super().open(folder)
        path = folder / "routes.yaml"
        path.write_text(_ROUTES)
        self._loop = asyncio.new_event_loop()
        table = Loader(path, import_handlers=False).load()
        self._backend = make_backend("memory://")
        source = OwnSource(lambda: table, lambda: self._backend, started=lambda: True, counters=lambda: None)
        self._loop.run_until_complete(self._backend.open())
        self._server = HttpServer(source)
        self._loop.run_until_complete(self._server.__aenter__())

    def close(self) -> None:
        """Stop the server."""
        self._loop.run_until_complete(self._server.__aexit__())
        self._loop.run_until_complete(self._backend.close())
        self._loop.close()

    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return a request: a head without its host and its token, and a body."""
        method, path = random.choice(_paths())
        if random.random() < 0.05:
            method = random.choice(("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"))

        def part(name: re.Match[str]) -> str:
            usual = _PARTS.get(name[1], "1")
            return usual if random.random() < 0.5 else quote(random.choice(_VALUES), safe="")

        parts = re.sub(r"\{(\w+)\}", part, path)
        chosen = random.sample(_QUERIES, random.choice((0, 0, 1, 1, 2, 4)))
        query = "&".join(f"{name}={quote(random.choice(_VALUES), safe='')}" for name in chosen)
        kind, body = _body(random, corpus)
        names = random.sample(_HEADERS, random.choice((0, 0, 0, 1, 2, 4)))
        given = [f"{name}: {random.choice(_VALUES)}" for name in names]
        if random.random() < 0.95:
            given.append(f"Content-Type: {kind}")
        if "Content-Length" not in names and "Transfer-Encoding" not in names:
            given.append(f"Content-Length: {len(body)}")
        if random.random() < 0.3:
            given.append("Accept: text/html")
        lines = [f"{method} {parts}{'?' if query else ''}{query} HTTP/1.1", *given]
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape")
        if random.random() < 0.05:
            head = mutate_bytes(random, head, [head, *ODD_BYTES])
        return [head, body]

    def check(self, given: Input) -> None:
        """Send a request; demand an answer that is not the answer to a bug."""
        answer = self._loop.run_until_complete(self._send(*given))
        demand(b"HTTP/1.1 500 " not in answer, f"the server fails: {answer[-2_000:].decode('latin-1')}")
        demand(len(answer) <= 1_000_000, f"the answer has {len(answer):,} bytes")

    async def _send(self, head: bytes, body: bytes) -> bytes:
        address = self._server.address
        reader, writer = await asyncio.open_connection(address.host, address.port)
        answer = b""
        try:
            async with asyncio.timeout(0.5 if b"ontent-" not in head else 5):
                line, _, rest = head.partition(b"\r\n")
                own = f"Host: {address}\r\nAuthorization: Bearer {_TOKEN}\r\nOrigin: http://{address}\r\n"
                writer.write(line + b"\r\n" + own.encode() + b"Connection: close\r\n")
                writer.write(rest + b"\r\n\r\n" + body)
                with suppress(ConnectionError):
                    while part := await reader.read(65_536):
                        answer += part
                        if _ENDLESS in answer:
                            break
        except TimeoutError:  # its length promises more than it sends
            pass
        finally:
            writer.close()
        return answer
