"""`abe-router pause`, `limit`, `resume` and `audit`, and every command that shows what is paused."""

from __future__ import annotations

import re
from pathlib import Path

from abe_router.backend import Backend
from abe_router.runtime.override import read_overrides

from .conftest import ROUTES, Run, on_backend

ROUTE = "orders.created/billing"
PAUSED = r"paused until [\d: -]+ UTC by \S+@\S+: gateway down"


def test_pause_is_shown_wherever_the_route_is(run: Run) -> None:
    run("publish", "orders.created", '{"id": 1, "total": 5}')
    done = run("pause", ROUTE, "--why", "gateway down")
    assert done.code == 0
    assert re.search(rf"{ROUTE}: {PAUSED}\n", done.err)
    assert "no worker is running; workers obey when they start" in done.err
    for command in (
        ["status"],
        ["routes"],
        ["explain", "orders.created", '{"id": 1, "total": 5}'],
        ["status", "--json"],
    ):
        shown = run(*command).out
        assert re.search(PAUSED, shown) or '"why": "gateway down"' in shown, command
    assert [each["action"] for each in run("routes", "--json").json[0]["overrides"]] == ["pause"]

    done = run("resume", ROUTE, "--why", "gateway is back")
    assert (done.code, f"{ROUTE}: no longer paused\n" in done.err) == (0, True)
    assert "paused" not in run("status").out
    assert on_backend(read_overrides) == []


def test_pause_says_how_many_messages_wait(run: Run) -> None:
    async def subscribe(backend: Backend) -> None:
        await (await backend.subscribe("orders.created", "billing")).close()

    on_backend(subscribe)
    for number in range(3):
        run("publish", "orders.created", f'{{"id": {number}, "total": 5}}')
    assert "  3 messages wait\n" in run("pause", ROUTE, "--why", "x").err


def test_limit_is_shown_in_place_of_the_rate_of_the_file(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES.replace("concurrency: 2", "rate: 7/s"))
    assert run("limit", "orders.created/*", "90/m", "--for", "2d", "--why", "slow gateway").code == 0
    explained = run("explain", "orders.created", '{"id": 1, "total": 500}').out
    assert len(re.findall("limited to 90/m until .*: slow gateway", explained)) == 2
    assert "7/s" not in explained


def test_resume_names_what_the_file_pauses(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES.replace("concurrency: 2", "paused: true"))
    done = run("resume", "orders.created/audit")
    assert done.code == 0
    assert "it stays paused, because the routes file says `paused: true`" in done.err


def test_override_needs_a_reason_an_end_and_a_route(run: Run) -> None:
    assert run("pause", ROUTE).code == 2
    done = run("pause", ROUTE, "--why", "x", "--for", "0s")
    assert (done.code, "more than 0s and at most 7d" in done.err) == (1, True)
    assert run("pause", ROUTE, "--why", "x", "--for", "8d").code == 1
    assert run("pause", ROUTE, "--why", "x", "--for", "an hour").code == 2
    assert run("limit", ROUTE, "0/s", "--why", "x").code == 2
    done = run("pause", "orders.created/biling", "--why", "x")
    assert (done.code, f"did you mean `{ROUTE}`?" in done.err) == (1, True)


def test_memory_backend_is_refused(run: Run) -> None:
    done = run("pause", ROUTE, "--why", "x", "--backend", "memory://")
    assert done.code == 78
    assert "backend `memory://` lives in one process, and this is another process" in done.err


def test_audit_shows_the_newest_act_first(run: Run) -> None:
    assert run("audit").err.endswith("no operator has changed anything\n")
    run("pause", ROUTE, "--why", "gateway down")
    run("resume", ROUTE)
    found = run("audit", "--json").json
    assert [(act["number"], act["action"], act["target"], act["why"]) for act in found] == [
        (2, "resume", ROUTE, ""),
        (1, "pause", ROUTE, "gateway down"),
    ]
    assert found[0]["source"] == "command line"
    assert [act["number"] for act in run("audit", "--limit", "1", "--json").json] == [2]
    assert "gateway down" in run("audit").out


def test_unreachable_backend_is_a_warning_where_the_file_is_enough(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES.replace("sqlite:///shop.db", "redis://127.0.0.1:1/0"))
    for command in (["routes"], ["explain", "orders.created", '{"id": 1, "total": 5}']):
        done = run(*command)
        assert done.code == 0
        assert "warning: the backend cannot be reached, so pauses and limits" in done.err
    assert run("pause", ROUTE, "--why", "x").code == 69
