"""`abe-router status` and `drop`: the state of a running system, and removed routes."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from .conftest import ROUTES, Run, dead_letter, on_backend

BILLING = "orders.created/billing"


def test_status_shows_counts_and_notes_of_each_route(run: Run) -> None:
    dead_letter({"id": 1, "total": 0}, route="orders.created/former")
    found = run("status", "--json").json
    routes = {route["route"]: route for route in found["routes"]}
    assert routes[BILLING]["ready"] is None
    former = routes["orders.created/former"]
    assert (former["in_file"], former["ready"], former["dead"]) == (False, 0, 1)
    text = run("status")
    assert text.code == 0
    assert "never seen" in text.out
    assert "not in the file" in text.out
    assert text.err == "no worker is running\n"


def test_status_shows_the_reports_of_workers(run: Run) -> None:
    fault = {
        "path": "routes.yaml",
        "line": 3,
        "column": 5,
        "code": "R101",
        "message": "unknown option",
        "severity": "error",
    }
    state = {
        "host": "host\x1b[2J",
        "pid": 7,
        "started_at": 0.0,
        "revision": "abcdef",
        "routes": {BILLING: {"in_hand": 3, "connected": False}},
        "receipt": {"number": 2, "added": ["a/b"], "removed": [], "changed": [], "kept": 4, "seconds": 0.01},
        "rejected": [fault],
    }

    async def announce(backend):
        await backend.announce("w1", msgspec.json.encode(state), 60)
        await backend.announce("w2", b"of another version", 60)

    on_backend(announce)
    text = run("status").out
    assert r"host\x1b[2J:7" in text
    assert "abcdef (differs from the file)" in text
    assert "0 of 1" in text
    assert "2: 1 added, 4 kept" in text
    assert "routes.yaml:3:5: error[R101]: unknown option" in text
    assert run("status", "--json").json["workers"] == {"w1": {**state, "number": 0, "path": None}, "w2": None}


def test_here_exits_0_only_if_all_workers_of_this_host_are_connected(run: Run) -> None:
    def announce(number: int, host: str, *, connected: bool) -> None:
        seat = {BILLING: {"in_hand": 0, "connected": connected}}
        state = {
            "host": host,
            "pid": number,
            "started_at": 0.0,
            "revision": "",
            "number": number,
            "routes": seat,
        }
        on_backend(lambda backend: backend.announce(f"w{number}", msgspec.json.encode(state), 60))

    announce(1, "elsewhere", connected=True)
    done = run("status", "--here")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"no worker is running on {socket.gethostname()}\n"
    announce(2, socket.gethostname(), connected=True)
    assert run("status", "--here").code == 0
    announce(3, socket.gethostname(), connected=False)
    done = run("status", "--here")
    assert done.code == 1
    assert done.err.startswith("1 of 2 workers on ")
    assert f"{socket.gethostname()}:3 [3] " in run("status").out


def test_backend_option_needs_no_routes_file(run: Run, shop: Path) -> None:
    dead_letter({"id": 1, "total": 0})
    (shop / "routes.yaml").unlink()
    assert run("status").code == 78
    assert run("status", "--backend", "sqlite:///shop.db", "--json").json["routes"][0]["dead"] == 1
    assert len(run("dead", "list", "--backend", "sqlite:///shop.db", "--json").json) == 1


def test_faulty_edit_does_not_hide_the_running_system(run: Run, shop: Path) -> None:
    dead_letter({"id": 1, "total": 0})
    (shop / "routes.yaml").write_text(ROUTES.replace("concurrency", "concurency"))
    done = run("status", "--json")
    assert done.code == 0
    assert done.json["routes"][0]["dead"] == 1
    assert done.err.startswith("warning: routes.yaml has faults")
    assert len(run("dead", "list", "--json").json) == 1
    assert run("drop", BILLING, "--yes").code == 78
    (shop / "routes.yaml").write_text("routes: [")
    assert run("status").code == 78
    assert run("status", "--backend", "sqlite:///shop.db").code == 0


def test_unknown_backend_url_error_names_the_option(run: Run) -> None:
    done = run("status", "--backend", "foo://x")
    assert done.code == 78
    assert done.err.startswith("error: --backend: no backend provider takes `foo://x`")


def test_drop_deletes_a_removed_route_and_refuses_others(run: Run, shop: Path) -> None:
    dead_letter({"id": 1})
    assert "is in routes.yaml" in run("drop", BILLING, "--yes").err
    (shop / "routes.yaml").write_text(ROUTES.replace("billing:", "invoices:"))
    assert run("drop", BILLING).code == 1
    assert run("drop", BILLING, "--yes").err == f"dropped {BILLING}\n"
    assert BILLING not in [route["route"] for route in run("status", "--json").json["routes"]]


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("dead", "list")])
def test_reading_a_missing_sqlite_file_does_not_create_it(
    run: Run, shop: Path, command: tuple[str, ...]
) -> None:
    done = run(*command, "--backend", "sqlite:///none.db")
    assert done.code == 0
    assert done.err.startswith("`none.db` does not exist yet: no message was published to it\n")
    assert not (shop / "none.db").exists()


def test_missing_folder_of_the_sqlite_file_exits_69(run: Run) -> None:
    assert run("status", "--backend", "sqlite:///none/none.db").code == 69
