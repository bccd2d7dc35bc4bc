"""Sessions of browsers: they outlast a restart, end everywhere, and tell readers of the backend nothing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from abe_router.backends import make_backend
from abe_router.errors import BackendUnavailable
from abe_router.http import sessions
from abe_router.http.access import Caller, Role, Token, digest
from abe_router.http.http_server import HttpServer
from abe_router.http.security import Security
from abe_router.http.sessions import LOOK_UPS, SESSIONS, Sessions
from abe_router.http.sources import OwnSource

from .serving import secret, serving

TOKEN = Token(digest("secret"), Caller("ada", frozenset({Role.VIEWER})))
OTHER = Token(digest("other"), Caller("ben", frozenset({Role.ADMIN})))


async def test_restarted_server_knows_the_session_of_a_browser(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            form, headers = {"token": secret("viewer")}, {"Origin": served.url}
            answer = await client.post("/login", data=form, headers=headers)
        session = next(iter(answer.cookies.values()))
        source = OwnSource(
            lambda: served.table, lambda: served.backend, started=lambda: True, counters=lambda: None
        )
        async with HttpServer(source) as restarted:
            port = restarted.address.port
            url = f"http://{restarted.address}"
            for value, status in ((session, 200), ("unknown", 401)):
                cookie = {"Cookie": f"abe-router-session-{port}={value}"}
                async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                    assert (await client.get("/v1/status", headers=cookie)).status_code == status
                    out = await client.post("/logout", headers=cookie | {"Origin": url})
                    assert out.status_code == (303 if status == 200 else 401)
        assert await served.backend.entries(SESSIONS) == {}


async def test_logout_at_one_server_ends_the_session_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CHECK_EVERY", 0.0)
    async with make_backend("memory://") as backend:
        one, two = Sessions(lambda: backend), Sessions(lambda: backend)
        session = await one.begin(TOKEN)
        await two.recall(session)
        assert two.caller(session, [OTHER, TOKEN]) == TOKEN.caller
        assert two.caller(session, [OTHER]) is None
        await two.end(session)
        await one.recall(session)
        assert one.caller(session, [TOKEN]) is None


async def test_stored_session_contains_neither_the_session_nor_the_hash_of_the_token() -> None:
    async with make_backend("memory://") as backend:
        session = await Sessions(lambda: backend).begin(TOKEN)
        ((name, entry),) = (await backend.entries(SESSIONS)).items()
        for text in (session, TOKEN.digest):
            assert text not in name
            assert text.encode() not in entry.value
        await backend.put(SESSIONS, digest("forged"), entry.value)
        forger = Sessions(lambda: backend)
        await forger.recall("forged")
        assert forger.caller("forged", [TOKEN]) is None


async def test_sessions_are_bounded_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    async with make_backend("memory://") as backend:
        server = Sessions(lambda: backend)
        begun = [await server.begin(TOKEN) for _ in range(5)]
        assert set(await backend.entries(SESSIONS)) == {digest(each) for each in begun[2:]}
        assert [bool(server.caller(each, [TOKEN])) for each in begun] == [False, False, True, True, True]
        monkeypatch.setattr(sessions, "SESSION_TIME", -1.0)
        late = Sessions(None)
        assert late.caller(await late.begin(TOKEN), [TOKEN]) is None


async def test_session_works_while_the_backend_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise BackendUnavailable("connection refused")

    monkeypatch.setattr(sessions, "CHECK_EVERY", 0.0)
    async with make_backend("memory://") as backend:
        server = Sessions(lambda: backend)
        stored = await server.begin(TOKEN)
        for name in ("get", "entries", "put", "delete"):
            monkeypatch.setattr(backend, name, away)
        own = await server.begin(TOKEN)
        for session in (stored, own):
            await server.recall(session)
            assert server.caller(session, [TOKEN]) == TOKEN.caller
            await server.end(session)
            assert server.caller(session, [TOKEN]) is None


async def test_unknown_sessions_and_probes_cost_the_backend_little(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = 0

    async def counted(*_: object) -> None:
        nonlocal asked
        asked += 1

    async with make_backend("memory://") as backend:
        monkeypatch.setattr(backend, "get", counted)
        security = Security([TOKEN], backend=lambda: backend)
        for number in range(10 * LOOK_UPS):
            await security.recall({"host": ["h:1"], "cookie": [f"abe-router-session-1={number:043}"]})
        await security.recall({"host": ["h:1"]})
    assert LOOK_UPS <= asked <= 3 * LOOK_UPS
    asked = 0
    monkeypatch.undo()
    async with serving(tmp_path) as served:
        monkeypatch.setattr(served.backend, "get", counted)
        cookie = {"Cookie": f"abe-router-session-{served.server.address.port}=x"}
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            for path in ("/livez", "/readyz", "/login"):
                assert (await client.get(path, headers=cookie)).status_code == 200
    assert asked == 0
