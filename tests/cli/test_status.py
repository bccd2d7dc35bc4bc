"""`abe-router status` and `drop`: the state of a running system, and removed routes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from pathlib import Path

import msgspec
import pytest

from abe_router import Router
from abe_router.backend import Backend
from abe_router.operations.audit import acts
from abe_router.runtime.heartbeat import WORKERS, DiagnosticReport, ReloadReport, RouteState, WorkerReport

from .conftest import ROUTES, Run, dead_letter, on_backend, published

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


def report(name: str, value: bytes) -> None:
    """Store the report of a worker in the shop's backend."""
    on_backend(lambda backend: backend.put(WORKERS, name, value, ttl=60))


def encoded(number: int, host: str, *, connected: bool) -> bytes:
    """Return the report of a worker with one route."""
    routes = {BILLING: RouteState(connected=connected)}
    return msgspec.json.encode(WorkerReport(host, number, 0.0, "", number=number, routes=routes))


def test_status_shows_the_age_of_the_oldest_ready_message(run: Run) -> None:
    assert published(group="billing") == []
    before = time.time()
    run("publish", "orders.created", '{"id": 1, "total": 5}')
    (state,) = [row for row in run("status", "--json").json["routes"] if row["route"] == BILLING]
    assert state["ready"] == 1
    assert before - 1 <= state["oldest_at"] <= time.time() + 1
    heading, row, *_ = run("status").out.splitlines()
    assert heading.split()[-2:] == ["oldest", "note"]
    assert re.search(r" \ds$", row)


def test_status_shows_the_reports_of_workers(run: Run) -> None:
    value = msgspec.json.encode(
        WorkerReport(
            host="host\x1b[2J",
            pid=7,
            started_at=0.0,
            revision="abcdef",
            routes={BILLING: RouteState(in_flight=3, connected=False)},
            reload=ReloadReport(number=2, added=("a/b",), kept=4, seconds=0.01),
            rejected=(DiagnosticReport("routes.yaml", 3, 5, "R101", "unknown option"),),
            outdated=("shop.py",),
            warnings=2,
        )
    )
    report("w1", value)
    report("w2", b"of another version")
    text = run("status").out
    assert r"host\x1b[2J:7" in text
    assert "abcdef (differs from the file)" in text
    assert "0 of 1" in text
    assert "2: 1 added, 4 kept" in text
    assert "the routes that run have 2 warnings: `abe-router check` shows them" in text
    assert "routes.yaml:3:5: error[R101]: unknown option" in text
    assert r"host\x1b[2J:7 runs older code than shop.py has:" in text
    assert run("status", "--json").json["workers"] == {"w1": msgspec.json.decode(value), "w2": None}


def test_here_exits_0_only_if_all_workers_of_this_host_are_connected(run: Run) -> None:
    here = socket.gethostname()
    report("w1", encoded(1, "elsewhere", connected=True))
    done = run("status", "--here")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"no worker is running on {here}\n"
    report("w2", encoded(2, here, connected=True))
    assert run("status", "--here").code == 0
    report("w3", encoded(3, here, connected=False))
    done = run("status", "--here")
    assert done.code == 1
    assert done.err == f"1 of 2 workers on {here} cannot reach the backend\n"
    assert f"{here}:3 [3] " in run("status").out


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
    assert "not in the file" not in run("status").out
    assert run("drop", BILLING, "--yes").code == 78
    (shop / "routes.yaml").write_text("backend: sqlite:///shop.db\nroutes: [")
    assert run("status", "--json").json["routes"][0]["dead"] == 1
    (shop / "routes.yaml").write_text("routes: [\nbackend: sqlite:///shop.db")
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
    assert done.err.startswith(f"`{shop / 'none.db'}` does not exist yet: no message was published to it\n")
    assert not (shop / "none.db").exists()


def test_missing_folder_of_the_sqlite_file_exits_69(run: Run) -> None:
    assert run("status", "--backend", "sqlite:///none/none.db").code == 69


def test_reports_of_another_program_hide_no_worker(run: Run) -> None:
    good = {"host": "h", "pid": 7, "started_at": 1.0, "revision": "r", "routes": {}}
    deep = b'{"x":' + b'{"a":' * 3000 + b"1" + b"}" * 3001
    odd = [
        {**good, "started_at": 1e300},
        {**good, "started_at": -1e300},
        {**good, "pid": 2**70},
        {**good, "host": "\x1b[2J"},
    ]
    values = [
        deep,
        b"\xff",
        b"[]",
        b"",
        b"{",
        *map(msgspec.json.encode, [*odd[:2], odd[3]]),
        msgspec.json.encode(good),
    ]

    async def put(backend: Backend) -> None:
        for number, value in enumerate(values):
            await backend.put("workers", f"w{number}", value, ttl=60)

    on_backend(put)
    for options in ((), ("--json",), ("--here",)):
        done = run("status", *options)
        assert done.code in (0, 1), done.err
        assert "\x1b[2J" not in done.out + done.err
    assert "h:7" in run("status").out


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_a_route_that_a_worker_of_another_file_runs_is_dropped_by_force_only(
    run: Run, shop: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    redis = request.getfixturevalue("abe_redis_url") if engine == "redis" else ""
    url = redis or f"sqlite:///{shop}/shop.db"
    other = shop / "other.yaml"
    other.write_text(
        "routes: {orders.created: {consumers: {fraud: {handler: 'shop_handlers:charge', paused: true}}}}\n"
    )
    fraud = "orders.created/fraud"

    async def scenario() -> None:
        async with Router.from_file(other, backend=url) as router:
            await router.publish("orders.created", {"id": 1, "total": 1})
            while not await router.backend.entries(WORKERS):
                await asyncio.sleep(0.01)
            worker = f"{other} on {socket.gethostname()}, process {os.getpid()}"
            doctor = (await asyncio.to_thread(run, "doctor", "--backend", url)).out
            assert (f"\n{fraud} is served by {worker}\n" in doctor, "D110" in doctor) == (True, False)
            status = (await asyncio.to_thread(run, "status", "--backend", url)).out
            assert f"not in the file, served by workers of {other}\n" in status
            purge = ("dead", "purge", fraud, "--all", "--yes", "--backend", url)
            purged = await asyncio.to_thread(run, *purge)
            assert (purged.code, f"is served by 1 worker: {worker}" in purged.err) == (1, True)
            assert "--force --why" in purged.err
            assert (await asyncio.to_thread(run, *purge, "--force", "--why", "known")).code == 0
            refused = await asyncio.to_thread(run, "drop", fraud, "--yes", "--backend", url)
            assert refused.code == 1
            assert worker in refused.err
            assert (
                await asyncio.to_thread(run, "drop", fraud, "--yes", "--force", "--backend", url)
            ).code == 1
            assert [status.ready for status in await router.backend.status()] == [1]
            options = ("--yes", "--force", "--why", "not needed", "--backend", url)
            assert (await asyncio.to_thread(run, "drop", fraud, *options)).code == 0
            act = (await acts(router.backend))[0]
            assert (act.target, act.why, act.result.startswith("forced: ")) == (fraud, "not needed", True)

    asyncio.run(scenario())
