"""The API inside another application, alone as `abe-router dashboard`, and without the extra."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from abe_router import Router
from abe_router.cli import http_server
from abe_router.cli.errors import CommandError
from abe_router.http.access import digest
from abe_router.http.tokens import TOKEN_FILE

from .serving import all_tokens, routes_file, secret


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_the_api_is_mounted_in_fastapi(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.json").write_text("{}")
    text = routes_file(all_tokens()).replace("os:getcwd", "shop_embedded:charge")
    (tmp_path / "routes.yaml").write_text(text)
    (tmp_path / "shop_embedded.py").write_text("async def charge(order):\n    pass\n")
    router = Router.from_file(tmp_path / "routes.yaml", watch=False)
    app = FastAPI()
    app.mount("/router", router.http_app())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert (await client.get("/router/startupz")).status_code == 503
        answer = await client.get("/router/v1/status", headers=bearer(secret("viewer")))
        assert answer.status_code == 503  # the router is not entered
        async with router:
            assert (await client.get("/router/readyz")).text == "ok\n"
            assert (await client.get("/router/v1/status")).status_code == 401
            answer = await client.get("/router/v1/status", headers=bearer(secret("viewer")))
            assert [route["route"] for route in answer.json()["routes"]] == [
                "orders.created/billing",
                "payments.made/audit",
            ]
            page = {"Origin": "http://127.0.0.1"}
            form = {"token": secret("viewer")}
            login = await client.post("/router/login", data=form, headers=page)
            assert login.status_code == 303
            assert login.headers["location"] == "/router/"
            assert "Path=/router;" in login.headers["set-cookie"]
            assert (await client.get("/router/v1/status")).status_code == 200  # by the cookie
            metrics = await client.get("/router/metrics", headers=bearer(secret("viewer")))
            assert 'abe_router_slots{key="orders.created",group="billing"}' in metrics.text
            stranger = {**bearer(secret("viewer")), "Host": "evil.example"}
            assert (await client.get("/router/v1/status", headers=stranger)).status_code == 421


async def test_an_embedded_router_without_tokens_keeps_one(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text("backend: memory://\nroutes: {orders.created: {}}\n")
    async with Router.from_file(tmp_path / "routes.yaml", watch=False) as router:
        transport = httpx.ASGITransport(router.http_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/v1/status")).status_code == 401
            token = (tmp_path / TOKEN_FILE).read_text().strip()
            assert (await client.get("/v1/status", headers=bearer(token))).status_code == 200


async def test_dashboard_serves_a_backend_without_handlers_and_follows_its_options(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(
        f"backend: sqlite:///{tmp_path}/log.db\n"
        "routes: {orders.created: {consumers: {billing: 'missing_module:charge'}}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "abe_router", "dashboard", "--listen", "127.0.0.1:0"),
        stderr=PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ABE_ROUTER_BACKEND": ""},
    )
    assert process.stderr
    try:
        async with asyncio.timeout(40):
            while b"listens at " not in (line := await process.stderr.readline()):
                assert line, "it has ended"
            address = line.decode().split("listens at ")[1].strip()
            while b"the token of the HTTP server is in" not in await process.stderr.readline():
                pass
            token = bearer((tmp_path / TOKEN_FILE).read_text().strip())
            async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
                assert (await client.get("/readyz")).text == "ok\n"
                status = (await client.get("/v1/status", headers=token)).json()
                assert [route["route"] for route in status["routes"]] == ["orders.created/billing"]
                await client.post("/v1/publish/orders.created", json={}, headers=token)
                path = tmp_path / "routes.yaml"
                text, ops = path.read_text(), f"{{sha256: {digest(secret('viewer'))}, roles: viewer}}"
                viewer = bearer(secret("viewer"))
                path.write_text(f"{text}http: {{tokens: {{ops: {ops}}}}}\n")
                while (await client.get("/v1/status", headers=viewer)).status_code != 200:
                    await asyncio.sleep(0.05)
                assert (await client.get("/v1/status", headers=token)).status_code == 401
                path.write_text(text)
                while (await client.get("/v1/status", headers=viewer)).status_code != 401:
                    await asyncio.sleep(0.05)
                assert (await client.get("/v1/status", headers=token)).status_code == 200
            process.send_signal(signal.SIGTERM)
            rest = await process.stderr.read()
            assert await process.wait() == 0
            assert b"Traceback" not in rest
    finally:
        if process.returncode is None:
            process.kill()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(CommandError, match="needs the extra `http`: uvicorn cannot be imported") as caught:
        http_server.require_extra()
    assert caught.value.hint == "run `pip install 'abe-router[http]'`"


def test_serve_refuses_an_open_address_without_tokens(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(f"backend: sqlite:///{tmp_path}/log.db\nroutes: {{orders.created: {{}}}}\n")
    from click.testing import CliRunner

    from abe_router.cli.root import root

    result = CliRunner().invoke(root, ["serve", str(path), "--http", "0.0.0.0:0"], obj=["serve"])
    assert "no token is configured" in str(result.exception)
    result = CliRunner().invoke(root, ["serve", "--http", str(path)], obj=["serve"])
    assert "is not an address" in str(result.exception) or "not exist" in str(result.exception)
