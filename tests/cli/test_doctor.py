"""`abe-router doctor`: output, exit codes, and that it writes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from abe_router import Router
from abe_router.backend import Backend

from .conftest import Run, on_backend


def publish(*payloads: object, route: str = "orders.created/billing") -> None:
    """Make a subscription on the shop's backend and publish payloads to it."""

    async def act(backend: Backend) -> None:
        key, group = route.split("/")
        handle = await backend.subscribe(key, group)
        for payload in payloads:
            await backend.publish(key, payload)
        await handle.close()

    on_backend(act)


def test_errors_come_first_with_meaning_and_hint(run: Run) -> None:
    done = run("doctor", "--backend", "memory://")
    assert done.code == 1
    assert done.out.startswith(
        "error[D101]: the backend is not durable\n"
        "  messages are lost with the process that holds them\n"
        "  hint: use another backend: `backend: sqlite:///queue.db` or `redis://HOST/0`\n"
        "error[D102]"
    )
    assert done.err == "2 errors on memory:// (the argument)\n"


def test_ignored_result_does_not_count(run: Run) -> None:
    publish({"id": 1, "total": 1}, route="orders.created/gone")
    done = run("doctor", "--ignore", "D110")
    assert (done.code, "D110" in done.out) == (0, False)
    assert done.err.startswith("ok: nothing weakens the promise on sqlite:///")
    assert done.err.endswith(" (ignored: D110)\n")


@pytest.mark.parametrize("has_file", [True, False])
def test_relative_backend_counts_from_the_folder_of_the_routes_file(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, *, has_file: bool
) -> None:
    elsewhere = shop / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    file = shop / ("routes.yaml" if has_file else "none.yaml")
    assert run("doctor", str(file), "--backend", "sqlite:///other.db").err.endswith(
        f"sqlite:///{shop}/other.db (the argument)\n"
    )


def test_router_workers_publish_and_doctor_choose_the_same_backend(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ABE_ROUTER_BACKEND", "sqlite:///chosen.db")
    chosen = f"sqlite:///{shop}/chosen.db ($ABE_ROUTER_BACKEND)"

    async def publish() -> None:
        async with Router.from_file(shop / "routes.yaml", consume=False) as router:
            await router.publish("orders.created", {"id": 1, "total": 1})

    with caplog.at_level("INFO"):
        asyncio.run(publish())
    assert caplog.messages[0] == f"backend {chosen}"
    assert run("publish", "orders.created", '{"id": 2, "total": 1}').code == 0
    assert json.loads(run("doctor", "--json").out)["chosen_by"] == "$ABE_ROUTER_BACKEND"
    command = [sys.executable, "-m", "abe_router", "serve", "--once", "--log-format", "text"]
    served = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stderr.splitlines()
    assert served[0].endswith(f"backend {chosen}")
    assert json.loads(run("status", "--json").out)["backend"] == f"sqlite:///{shop}/chosen.db"
    assert not (shop / "queue.db").exists()


def test_missing_sqlite_file_is_not_created(run: Run, shop: Path) -> None:
    done = run("doctor")
    assert done.code == 0
    assert "is not there yet" in done.out
    assert done.err.startswith("ok: nothing weakens the promise on sqlite:///")
    assert not (shop / "shop.db").exists()


def test_orphaned_subscription_is_reported_only_with_a_routes_file(run: Run, shop: Path) -> None:
    publish({"id": 1, "total": 1}, route="orders.created/gone")
    done = run("doctor")
    assert done.code == 1
    assert "warning[D110]: `orders.created/gone` holds 1 message and is not in the file\n" in done.out
    assert done.err.startswith("1 warning on sqlite:///")
    assert run("doctor", "none.yaml", "--backend", "sqlite:///shop.db").code == 0


def test_subscription_in_the_routes_file_may_hold_messages(run: Run) -> None:
    publish({"id": 1, "total": 1})
    assert run("doctor").code == 0


def test_json_has_every_result(run: Run) -> None:
    done = run("doctor", "--backend", "memory://", "--json")
    assert done.code == 1
    assert done.json["backend"] == "memory://"
    assert done.json["results"][0] == {
        "code": "D101",
        "severity": "error",
        "message": "the backend is not durable",
        "meaning": "messages are lost with the process that holds them",
        "hint": "use another backend: `backend: sqlite:///queue.db` or `redis://HOST/0`",
    }


def test_unreachable_server_exits_69_and_faulty_file_78(run: Run, shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run("doctor", "--backend", f"redis://me:s3cret@127.0.0.1:{port}")
    assert (done.code, done.out) == (69, "")
    assert "s3cret" not in done.err
    (shop / "routes.yaml").write_text("routes: [")
    assert run("doctor").code == 78


@pytest.mark.parametrize("url", ["sqlite:///none/queue.db", "sqlite:///schemas", "sqlite:///routes.yaml"])
def test_mistake_in_the_url_is_an_error_without_traceback(run: Run, url: str) -> None:
    done = run("doctor", "--backend", url)
    assert done.code == 1
    assert "error[D201]" in done.out
    assert "Traceback" not in done.out + done.err


def test_colour_only_adds_escape_codes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run("doctor", "--backend", "memory://").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    colored = run("doctor", "--backend", "memory://").out
    assert "\033[1;31merror[D101]\033[0m" in colored
    for code in ("\033[1;31m", "\033[1;34m", "\033[1m", "\033[0m"):
        colored = colored.replace(code, "")
    assert colored == plain


def test_read_only_sqlite_file_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    publish({"id": 1, "total": 1})
    monkeypatch.setattr("os.access", lambda _, mode, **__: not mode & os.W_OK)
    done = run("doctor")
    assert done.code == 1
    assert "error[D201]: this user may not read and write the file\n" in done.out
    assert "ok[D201]" not in done.out
