"""Hostile requests against a real server, over a socket: what each is answered, and that nothing changes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from abe_router.http.access import digest
from abe_router.runtime.override import read_overrides
from tests.limits import HANG

from .serving import SECRET, Serving, add_dead_letter, secret, send_raw, serving

#: The connection ends without an answer.
NOTHING = 0
JSON = "Content-Type: application/json"
EXPLAIN = b'{"key": "orders.created", "payload": {"total": 1}}'


@dataclass(frozen=True)
class Attack:
    """A request: its first line, its headers and its body; or the bytes of all of it.

    `token` is the role of its token. HOST in a header stands for the right host, and SESSION for a cookie of
    an admin. `answers` are the statuses that are right.
    """

    name: str
    line: str
    answers: tuple[int, ...]
    headers: tuple[str, ...] = ()
    body: bytes = b""
    token: str = ""
    raw: bytes = b""

    def encode(self, host: str, session: str) -> bytes:
        if self.raw:
            return self.raw
        given = [header.replace("HOST", host).replace("SESSION", session) for header in self.headers]
        if not any(header.lower().startswith("host:") for header in given):
            given.insert(0, f"Host: {host}")
        if self.token:
            given.append(f"Authorization: Bearer {secret(self.token)}")
        if self.body and not any("length" in h.lower() or "encoding" in h.lower() for h in given):
            given.append(f"Content-Length: {len(self.body)}")
        lines = [f"{self.line} HTTP/1.1", *(h for h in given if h != "Host: -"), "Connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


def attacks() -> Iterator[Attack]:
    yield from names_of_strangers()
    yield from pages_of_strangers()
    yield from false_tokens()
    yield from roles_exceeded()
    yield from tricks_of_paths()
    yield from malformed()


def names_of_strangers() -> Iterator[Attack]:
    """DNS rebinding: the token would be right, but the name of the server is not."""
    for host in (
        "evil.example",
        "evil.example:8470",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "example.com",
        "evilexample.com",
        "router.example.org.evil.example",
    ):
        yield Attack(f"host {host}", "GET /v1/status", (421,), (f"Host: {host}",), token="admin")
        yield Attack(f"login at {host}", "GET /login", (421,), (f"Host: {host}",))
    for name, host in {
        "a user": "admin@127.0.0.1",
        "a path": "127.0.0.1/evil.example",
        "nothing": "",
        "a space": "127.0.0.1 evil.example",
    }.items():
        yield Attack(f"a host with {name}", "GET /v1/status", (400,), (f"Host: {host}",), token="admin")
    two = ("Host: HOST", "Host: evil.example")
    yield Attack("two hosts", "GET /v1/status", (400,), two, token="admin")
    yield Attack("no host", "GET /v1/status", (400,), ("Host: -",), token="admin")
    yield Attack("a stranger as target", "GET http://evil.example/v1/status", (400,), token="admin")
    forwarded = ("Host: evil.example", "X-Forwarded-Host: 127.0.0.1", "Forwarded: host=127.0.0.1")
    yield Attack("a forwarded host", "GET /v1/status", (421,), forwarded, token="admin")


def pages_of_strangers() -> Iterator[Attack]:
    """CSRF: a browser with a session sends what a page of a stranger wants."""
    cookie = "Cookie: SESSION"
    for name, *headers in (
        ("cross-site", "Sec-Fetch-Site: cross-site"),
        ("same-site", "Sec-Fetch-Site: same-site"),
        ("another origin", "Origin: http://evil.example"),
        ("no origin", "Origin: null"),
        ("another port", "Origin: http://127.0.0.1:1"),
        ("the right origin, cross-site", "Origin: http://HOST", "Sec-Fetch-Site: cross-site"),
        ("a trusted name as part", "Origin: https://ops.example.com.evil.example"),
        ("a trusted origin without TLS", "Origin: http://ops.example.com"),
    ):
        given = (JSON, cookie, *headers)
        yield Attack(f"a page of {name}", "POST /v1/explain", (403,), given, EXPLAIN)
    yield Attack("a page with a token", "POST /v1/explain", (403,), ("Origin: null", JSON), EXPLAIN, "admin")
    yield Attack("a cookie without a page", "POST /v1/explain", (401,), (JSON, cookie), EXPLAIN)
    form = ("Content-Type: application/x-www-form-urlencoded", "Origin: http://evil.example")
    token = f"token={secret('admin')}".encode()
    yield Attack("a login for a stranger", "POST /login", (403,), form, token)
    yield Attack("a logout by a stranger", "POST /logout", (403,), (cookie, "Sec-Fetch-Site: cross-site"))
    plain = ("Content-Type: text/plain", cookie, "Sec-Fetch-Site: same-origin")
    yield Attack("JSON as text", "POST /v1/explain", (415,), plain, EXPLAIN)


def false_tokens() -> Iterator[Attack]:
    for name, *headers in (
        ("no token",),
        ("an unknown token", "Authorization: Bearer unknown"),
        ("an empty token", "Authorization: Bearer "),
        ("a token of another scheme", f"Authorization: Basic {secret('admin')}"),
        ("a token without scheme", f"Authorization: {secret('admin')}"),
        ("a token in capitals", f"Authorization: Bearer {secret('admin').upper()}"),
        ("a part of a token", f"Authorization: Bearer {secret('admin')[:-1]}"),
        ("the hash of a token", f"Authorization: Bearer {digest(secret('admin'))}"),
        ("a token as cookie", f"Cookie: abe-router-session={secret('admin')}"),
        ("an unknown session", "Cookie: abe-router-session-8470=unknown"),
        ("a malformed cookie", "Cookie: =;;;\x01=\x02"),
        ("a forwarded address", "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1"),
        ("a forwarded user", "X-Remote-User: admin", "X-Forwarded-User: admin"),
    ):
        yield Attack(name, "GET /v1/status", (401, 400), tuple(headers))
    two = (f"Authorization: Bearer {secret('viewer')}", f"Authorization: Bearer {secret('admin')}")
    yield Attack("two tokens", "GET /v1/status", (401,), two)
    for name in ("token", "access_token", "TOKEN", "api_key", "authorization", "x=1&token"):
        target = f"GET /v1/status?{name}={secret('admin')}"
        yield Attack(f"{name} in the URL", target, (400,), token="admin")


def roles_exceeded() -> Iterator[Attack]:
    one = "/v1/routes/payments.made/audit"
    yield Attack("a publisher reads", "GET /v1/status", (403,), token="publisher")
    yield Attack("a publisher explains", "POST /v1/explain", (403,), (JSON,), EXPLAIN, "publisher")
    yield Attack("another key is read", f"GET {one}", (403,), token="orders-viewer")
    yield Attack("all workers are read with a limit", "GET /v1/workers", (403,), token="orders-viewer")
    other = EXPLAIN.replace(b"orders.created", b"payments.made")
    yield Attack("another key is explained", "POST /v1/explain", (403,), (JSON,), other, "orders-viewer")
    letters, every = "/v1/dead-letters/orders.created/billing", b'{"all": true}'
    override = b'{"route": "orders.created/billing", "action": "pause", "why": "x"}'
    for role in ("viewer", "operator", "publisher"):
        yield Attack(f"a {role} reads a payload", f"GET {letters}/1", (403,), token=role)
        yield Attack(f"a {role} tries payloads", f"POST {letters}/try", (403,), (JSON,), every, role)
    for role in ("viewer", "reader", "publisher"):
        yield Attack(f"a {role} purges", f"POST {letters}/purge", (403,), (JSON,), every, role)
        yield Attack(f"a {role} replays", f"POST {letters}/replay", (403,), (JSON,), every, role)
        yield Attack(f"a {role} pauses", "POST /v1/overrides", (403,), (JSON,), override, role)
        resume = "DELETE /v1/overrides/orders.created/billing"
        yield Attack(f"a {role} resumes", resume, (403,), token=role)
        yield Attack(f"a {role} reads the audit", "GET /v1/audit", (403,), token=role)
    yield Attack("an operator drops", "DELETE /v1/routes/orders.created/billing", (403,), token="operator")
    foreign = "/v1/dead-letters/payments.made/audit"
    limited = "orders-operator"
    yield Attack("another key is purged", f"POST {foreign}/purge", (403,), (JSON,), every, limited)
    yield Attack("another key is replayed", f"POST {foreign}/replay", (403,), (JSON,), every, limited)
    wide = override.replace(b"orders.created", b"#")
    yield Attack("every key is paused", "POST /v1/overrides", (403,), (JSON,), wide, limited)
    wider = override.replace(b"orders.created/billing", b"orders.#/wide")
    yield Attack("a route of more keys is paused", "POST /v1/overrides", (404,), (JSON,), wider, limited)
    yield Attack(
        "a route of more keys is resumed", "DELETE /v1/overrides/orders.%23/wide", (404,), token=limited
    )
    named = "DELETE /v1/overrides/%23.created/wide"
    yield Attack("a route of more keys is resumed by its name", named, (403,), token=limited)
    yield Attack("a pattern of more keys", "GET /v1/routes/%23/x", (403,), token="orders-viewer")
    yield Attack("purge by GET", f"GET {letters}/purge?all=true", (404,), token="admin")
    yield Attack("a publisher scrapes", "GET /metrics", (403,), token="publisher")
    for role in ("viewer", "reader", "operator"):
        yield Attack(f"a {role} publishes", "POST /v1/publish/orders.created", (403,), (JSON,), b"{}", role)
    limited = "orders-publisher"
    yield Attack(
        "another key is published", "POST /v1/publish/payments.made", (403,), (JSON,), b"{}", limited
    )


def tricks_of_paths() -> Iterator[Attack]:
    for path, answers in {
        "/v1/../v1/status": (400,),
        "/login/../v1/status": (400,),
        "/livez/../v1/status": (400,),
        "/%2e%2e/v1/status": (400,),
        "/livez/%2e%2e/v1/status": (400,),
        "/livez%2f..%2fv1%2fstatus": (400,),
        "//v1/status": (400,),
        "/v1//status": (400,),
        "/./v1/status": (400,),
        "/v1/status%00": (400,),
        "/v1/status%0d%0aX-Evil:1": (400,),
        "/v1\\status": (400,),
        "/v1/%5c..%5cstatus": (400,),
        "/v1/status%c0%ae": (401,),
        "/%252e%252e/v1/status": (401,),
        "/v1/status/": (401,),
        "/V1/STATUS": (401,),
        "/livez/x": (401,),
        "/login%20": (401,),
        "/livez;x=/v1/status": (401,),
        f"/{'x' * 20_000}": (400, 414),
        f"/v1/status?x={'x' * 9_000}": (414,),
        "*": (400,),
        "v1/status": (400,),
    }.items():
        yield Attack(f"path {path[:40]}", f"GET {path}", answers)
    yield Attack(
        "a rewritten path", "GET /livez", (200,), ("X-Original-URL: /v1/status", "X-Rewrite-URL: /v1")
    )


def malformed() -> Iterator[Attack]:
    for method in ("PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get"):
        yield Attack(f"method {method}", f"{method} /v1/status", (405, 400), token="admin")
    override = ("X-HTTP-Method-Override: POST", "X-Method-Override: POST")
    yield Attack("an overridden GET", "GET /v1/explain?_method=POST", (405,), override, EXPLAIN, "admin")
    yield Attack("logout by GET", "GET /logout", (405,), ("Cookie: SESSION",))
    yield Attack("a long header", "GET /v1/status", (400, 431), ("X-Long: " + "x" * 20_000,), token="admin")
    many = tuple(f"X-{number}: {'x' * 20}" for number in range(2_000))
    yield Attack("many headers", "GET /v1/status", (400, 431), many, token="admin")
    yield Attack("a header with NUL", "GET /v1/status", (400,), ("X-A: \0",), token="admin")
    yield Attack("a name with a space", "GET /v1/status", (400,), ("X A: 1",), token="admin")
    for name, path in {
        "an edit": "/v1/edits/",
        "a difference": "/v1/edits/1/diff?base=",
        "a replay": "/v1/replays/",
        "a page of an edit": "/edits/",
        "a page of a replay": "/replays/",
        "a page of dead letters": "/dead?page=",
        "a page of messages": "/messages?page=",
        "a limit of edits": "/v1/edits?limit=",
        "a limit of dead letters": "/v1/dead-letters?limit=",
        "a time": "/v1/dead-letters?since=",
        "a sample": "/v1/tail?sample=",
        "a limit of acts": "/v1/audit?limit=",
        "a padded limit of acts": "/v1/audit?limit=000000100",
    }.items():
        yield Attack(f"{name} of 5,000 digits", f"GET {path}{'9' * 5_000}", (400, 404), token="admin")
    short = "GET /v1/audit?limit=00000010099999999999"
    yield Attack("a limit behind zeros", short, (400,), token="admin")
    digits = (JSON, f"Content-Length: {'0' * 4_000}{'9' * 15}")
    yield Attack("a length of zeros", "POST /v1/explain", (400, 413), digits, b"{}", "admin")
    yield Attack("a negative length", "POST /v1/explain", (400,), ("Content-Length: -1",), b"{}", "admin")
    chunks = (JSON, "Transfer-Encoding: chunked, identity")
    yield Attack("an unknown encoding", "POST /v1/explain", (400, 501), chunks, b"{}", "admin")
    zip_bomb = (JSON, "Content-Encoding: gzip")
    yield Attack("a compressed body", "POST /v1/explain", (400, 415), zip_bomb, b"\x1f\x8b\x08\0", "admin")
    large = (JSON, "Content-Length: 99999999999")
    yield Attack("a huge length", "POST /v1/explain", (413,), large, b"{", "admin")
    chunked = (JSON, "Transfer-Encoding: chunked")
    parts = b"".join(b"10000\r\n%s\r\n" % (b" " * 65_536) for _ in range(20))
    yield Attack("a long chunked body", "POST /v1/explain", (413,), chunked, parts, "admin")
    for name, body in {
        "no JSON": b"{",
        "deep JSON": b"[" * 100_000,
        "no UTF-8": b'{"key": "\xff"}',
        "a wrong type": b'{"key": 1, "payload": 1}',
        "an unknown member": b'{"key": "a", "payload": 1, "role": "admin"}',
        "a wrong key": b'{"key": "../../etc/passwd", "payload": 1}',
        "a key with a line break": b'{"key": "a\\r\\nX: 1", "payload": 1}',
    }.items():
        yield Attack(f"a body with {name}", "POST /v1/explain", (400,), (JSON,), body, "admin")
    told = b'{"key": "orders.created", "payload": {"total": -1, "card": "%s"}}' % (SECRET.encode() * 3)
    yield Attack("a masked value", "POST /v1/explain", (200,), (JSON,), told, "viewer")
    path, body = "POST /v1/publish/orders.created", told.partition(b'"payload": ')[2][:-1]
    yield Attack("a refused masked value", path, (422,), (JSON,), body, "admin")
    deep = b'{"key": "orders.created", "payload": %s1%s}' % (b"[" * 50_000, b"]" * 50_000)
    yield Attack("a deep payload", "POST /v1/explain", (400, 422), (JSON,), deep, "admin")
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: x",
        "Sec-WebSocket-Version: 13",
    )
    yield Attack("a WebSocket", "GET /v1/status", (401,), upgrade)
    yield Attack(
        "no HTTP", "", (400, NOTHING), raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50
    )
    yield Attack("HTTP/2", "", (400, 401), raw=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield Attack("HTTP/0.9", "", (400,), raw=b"GET /v1/status\r\n\r\n")
    yield Attack("only line breaks", "", (400, NOTHING), raw=b"\r\n" * 20_000)


async def log_in(served: Serving) -> str:
    """Return the cookie of a session of an admin."""
    host = str(served.server.address)
    body = f"token={secret('admin')}"
    head = f"POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n"
    answer = await send_raw(served, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    line = next(line for line in answer.decode().split("\r\n") if line.lower().startswith("set-cookie"))
    assert "HttpOnly" in line
    assert "SameSite=strict" in line
    return line.partition(": ")[2].partition(";")[0]


@pytest.mark.timeout(120)
async def test_hostile_requests_are_refused_and_change_nothing(tmp_path: Path) -> None:
    found = list(attacks())
    assert len(found) >= 60
    assert len({attack.name for attack in found}) == len(found)
    wrong = {}
    async with serving(tmp_path) as served:
        await add_dead_letter(served, {"total": 1, "card": SECRET})
        await (await served.backend.subscribe("#.created", "wide")).close()
        session = await log_in(served)
        before = await served.backend.status()
        for attack in found:
            answer = await send_raw(served, attack.encode(str(served.server.address), session))
            status = int(answer[9:12]) if answer else NOTHING
            head, _, body = answer.partition(b"\r\n\r\n")
            if status not in attack.answers:
                wrong[attack.name] = answer.decode("latin-1")[:600]
            elif status >= 400 and b"problem+json" in head:
                assert json.loads(body)["status"] == status, attack.name
                assert b"content-security-policy" in head, attack.name
            assert SECRET.encode() not in answer, attack.name
            assert b"secret-token" not in answer, attack.name
            assert b"X-Evil" not in head, attack.name
            assert b"access-control-allow" not in head.lower(), attack.name
        assert wrong == {}
        assert await served.backend.status() == before
        assert await read_overrides(served.backend) == []
        good = f"GET /v1/status HTTP/1.1\r\nHost: HOST\r\nCookie: {session}\r\nConnection: close\r\n\r\n"
        answer = await send_raw(served, good.replace("HOST", str(served.server.address)).encode())
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /login HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHOST\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nHOST\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.0\r\nTransfer-Encoding: chunked\r\nHOST\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\nHOST\r\n\r\n",
        b"POST /login HTTP/1.1\r\nContent-Length : 0\r\nHOST\r\n\r\n",
        b"GET /livez HTTP/1.1\nHOST\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHOST\n\r\n",
        b"GET /livez HTTP/1.1\r\nHOST\r\n\n",
        b"GET /livez HTTP/1.1\nHOST\n\n",
        b"GET /livez HTTP/1.1\r\nX-A: 1\rX-B: 2\r\nHOST\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nX-A: 1\r\n folded\r\nHOST\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n HOST\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 10_000])
async def test_ambiguous_head_is_refused_and_ends_the_connection(
    served: Serving, head: bytes, step: int
) -> None:
    """The first request on the connection is fine, and so would be the last, which is not answered."""
    host = f"Host: {served.server.address}".encode()
    good = b"GET /livez HTTP/1.1\r\nHOST\r\n\r\n"
    sent = (good + head + good).replace(b"HOST", host)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.address.port)
    received = b""

    async def receive() -> None:
        nonlocal received
        with suppress(ConnectionError):  # the server does not read what comes after its refusal
            while part := await reader.read(65_536):
                received += part

    async with asyncio.timeout(HANG):
        receiving = asyncio.create_task(receive())
        for start in range(0, len(sent), step):
            if receiving.done():
                break
            writer.write(sent[start : start + step])
            await asyncio.sleep(0)
        await receiving
    writer.close()
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"400"]
    assert len(received) < 2_000


@pytest.mark.parametrize(
    "odd",
    ['foo={"a":1}', "a@b=1", "x=\x01", "é=1", "a b", "=x", ";;", 'q="x; y="z', "a=b=c", "SESSION=forged"],
)
async def test_cookie_of_another_program_hides_no_session(served: Serving, odd: str) -> None:
    session = await log_in(served)
    odd = odd.replace("SESSION", session.partition("=")[0])
    for cookies in (f"{odd}; {session}", f"{session}; {odd}", f"{odd};{session};{odd}"):
        head = f"GET /v1/status HTTP/1.1\r\nHost: {served.server.address}\r\nConnection: close\r\n"
        answer = await send_raw(served, f"{head}Cookie: {cookies}\r\n\r\n".encode("latin-1"))
        if "\x01" not in cookies:  # no server takes a control character in a header
            assert answer.startswith(b"HTTP/1.1 200"), cookies


@pytest.mark.parametrize(
    ("headers", "is_secure"),
    [
        ({"Origin": "http://HOST"}, False),
        ({"Origin": "https://HOST"}, True),
        ({"X-Forwarded-Proto": "https", "Sec-Fetch-Site": "same-origin"}, True),
        ({"X-Forwarded-Proto": "https, http", "Origin": "http://HOST"}, True),
        ({"X-Forwarded-Proto": "http", "Origin": "http://HOST"}, False),
    ],
)
async def test_cookies_are_secure_if_the_browser_or_a_proxy_says_that_it_uses_tls(
    served: Serving, headers: dict[str, str], is_secure: bool
) -> None:
    given = {name: value.replace("HOST", str(served.server.address)) for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, headers=given) as client:
        answers = [await client.post("/login", data={"token": secret("admin")})]
        client.headers["Cookie"] = answers[0].headers["set-cookie"].partition(";")[0]
        answers.append(await client.post("/theme", data={"theme": "dark"}))
    for answer in answers:
        assert answer.status_code == 303
        assert ("; Secure" in answer.headers["set-cookie"]) is is_secure
