"""Dead letters over HTTP: what each role sees and does, and replays in the background of the server."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from abe_router.consumer.filter import Filter
from abe_router.operations import dead_letters
from abe_router.runtime.publish import publish
from tests.limits import HANG

from .serving import SECRET, Serving, add_dead_letter, all_tokens, routes_file, serving
from .serving import ask as ask_anything

ROUTE = "/v1/dead-letters/orders.created/billing"


async def ask(served: Serving, role: str, method: str, path: str, **options: Any) -> httpx.Response:
    """Return an answer, which does not contain the secret unless the text of an error quotes it."""
    answer = await ask_anything(served, role, method, path, **options)
    assert SECRET not in answer.text or "quotes" in answer.text
    return answer


async def test_a_viewer_sees_no_payload_and_no_text_of_an_error(served: Serving) -> None:
    id = await add_dead_letter(served, {"total": 1, "card": SECRET})
    for role, text in (("viewer", ""), ("reader", "the handler quotes")):
        listed = (await ask(served, role, "GET", "/v1/dead-letters")).json()["dead_letters"]
        assert [each["id"] for each in listed] == [id]
        assert listed[0]["kind"] == "failed"
        assert listed[0]["message"].startswith(text)
        assert bool(listed[0]["message"]) == bool(text)
        groups = (await ask(served, role, "GET", "/v1/dead-letters/groups")).json()["groups"]
        assert [group["count"] for group in groups] == [1]
        assert bool(groups[0]["message"]) == bool(text)
    assert (await ask(served, "viewer", "GET", f"{ROUTE}/{id}")).status_code == 403
    assert (await ask(served, "operator", "GET", f"{ROUTE}/{id}")).status_code == 403


async def test_the_payload_of_a_dead_letter_is_masked(served: Serving) -> None:
    id = await add_dead_letter(served, {"total": 1, "card": SECRET})
    found = (await ask(served, "reader", "GET", f"{ROUTE}/{id}")).json()
    assert found["payload"] == {"total": 1, "card": "(masked)"}
    assert (await ask(served, "reader", "GET", f"{ROUTE}/unknown")).status_code == 404


@pytest.mark.parametrize(
    "payload",
    [[{"card": SECRET}], json.dumps({"card": SECRET}), SECRET],
    ids=["in an array", "in a text", "a scalar"],
)
async def test_a_payload_without_the_shape_of_its_schema_is_masked(served: Serving, payload: Any) -> None:
    id = await add_dead_letter(served, payload)
    found = (await ask(served, "reader", "GET", f"{ROUTE}/{id}")).json()
    assert found["payload"] == "(masked)"


async def test_a_list_is_limited_and_goes_on_after_an_id(served: Serving) -> None:
    ids = [await add_dead_letter(served, {"total": n}) for n in range(3)]
    page = (await ask(served, "viewer", "GET", "/v1/dead-letters?limit=2")).json()
    assert [each["id"] for each in page["dead_letters"]] == ids[:2]
    assert page["more"] is True
    path = f"/v1/dead-letters?route=orders.created/billing&after={ids[1]}"
    page = (await ask(served, "viewer", "GET", path)).json()
    assert [each["id"] for each in page["dead_letters"]] == ids[2:]
    assert page["more"] is False
    for query in ("limit=0", "limit=x", "since=x", "key=..", "route=x", "after=1", "since=nan"):
        assert (await ask(served, "viewer", "GET", f"/v1/dead-letters?{query}")).status_code == 400, query


async def test_purge_asks_what_is_meant_and_records_the_act(served: Serving) -> None:
    ids = [await add_dead_letter(served, {"total": n}) for n in range(3)]
    for body in ({}, {"all": True, "ids": ids}, {"all": True, "kind": "failed"}, {"ids": ids, "first": 0}):
        assert (await ask(served, "operator", "POST", f"{ROUTE}/purge", json=body)).status_code == 400, body
    for role in ("viewer", "reader", "publisher"):
        answer = await ask(served, role, "POST", f"{ROUTE}/purge", json={"all": True})
        assert answer.status_code == 403
    other = ROUTE.replace("orders.created/billing", "payments.made/audit")
    assert (
        await ask(served, "orders-operator", "POST", f"{other}/purge", json={"all": True})
    ).status_code == 403
    dry = await ask(served, "operator", "POST", f"{ROUTE}/purge", json={"all": True, "dry_run": True})
    assert [group["count"] for group in dry.json()["groups"]] == [3]
    body = {"ids": [ids[0], "unknown"], "why": "it was a test"}
    moved = await ask(served, "orders-operator", "POST", f"{ROUTE}/purge", json=body)
    assert moved.json() == {"requested": 2, "done": 1}
    left = await served.backend.dead_letters("orders.created", "billing", limit=10)
    assert [each.id for each in left] == ids[1:]


async def test_a_replay_runs_in_the_background_and_can_be_watched(served: Serving) -> None:
    for total in range(3):
        await add_dead_letter(served, {"total": total})
    body = {"all": True, "rate": 1_000, "why": "the gateway is back"}
    started = await ask(served, "operator", "POST", f"{ROUTE}/replay", json=body)
    assert started.status_code == 202
    path = f"/v1/replays/{started.json()['number']}"
    async with asyncio.timeout(HANG):
        while (found := (await ask(served, "viewer", "GET", path)).json())["state"] == "running":
            await asyncio.sleep(0.02)
    assert (found["state"], found["replayed"], found["author"]) == ("done", 3, "operator")
    assert await served.backend.dead_letters("orders.created", "billing", limit=10) == []
    listed = (await ask(served, "viewer", "GET", "/v1/replays")).json()
    assert [each["number"] for each in listed] == [found["number"]]
    again = await ask(served, "operator", "POST", f"{path}/continue", json={})
    assert again.status_code == 409
    assert (await ask(served, "viewer", "POST", f"{path}/stop", json={})).status_code == 403
    assert (await ask(served, "operator", "POST", "/v1/replays/999/stop", json={})).status_code == 404


async def test_try_says_what_would_become_of_dead_letters(served: Serving) -> None:
    await add_dead_letter(served, {"total": 1})
    tried = await ask(served, "reader", "POST", f"{ROUTE}/try", json={"all": True})
    assert tried.json()["delivered"] == 1
    assert (await ask(served, "viewer", "POST", f"{ROUTE}/try", json={"all": True})).status_code == 403


async def test_a_limited_caller_sees_its_own_keys_alone(served: Serving) -> None:
    await (await served.backend.subscribe("payments.made", "audit")).close()
    status = (await ask(served, "orders-viewer", "GET", "/v1/status")).json()
    assert [route["route"] for route in status["routes"]] == ["orders.created/billing"]
    routes = (await ask(served, "orders-viewer", "GET", "/v1/routes")).json()
    assert [route["route"] for route in routes] == ["orders.created/billing"]
    scale = await ask(served, "orders-viewer", "GET", "/v1/scale?routes=orders.*")
    assert scale.status_code == 200
    assert (await ask(served, "orders-viewer", "GET", "/v1/scale")).status_code == 403
    assert (await ask(served, "orders-viewer", "GET", "/metrics")).status_code == 403


async def test_autoscaler_of_some_keys_does_not_count_a_route_of_more_keys(tmp_path: Path) -> None:
    wide = '  "#.created":\n    consumers: {wide: "os:getcwd"}\n'
    async with serving(tmp_path, routes_file(all_tokens()) + wide) as served:
        for route in (("orders.created", "billing"), ("#.created", "wide")):
            await (await served.backend.subscribe(*route)).close()
        await publish(served.table, served.backend, "orders.created", {"total": 1})
        for role, backlog in (("orders-viewer", 1), ("viewer", 2)):
            scale = await ask(served, role, "GET", "/v1/scale?routes=orders.%23")
            assert scale.json()["backlog"] == backlog


@pytest.mark.parametrize(
    ("of", "name", "path"),
    [(Filter, "check", f"{ROUTE}/try"), (dead_letters, "masked_payload", f"{ROUTE}/{{id}}")],
)
async def test_server_answers_while_payloads_are_read(
    served: Serving, monkeypatch: pytest.MonkeyPatch, of: Any, name: str, path: str
) -> None:
    id = await add_dead_letter(served, {"total": 1})
    loop, begun, go_on, run = (
        asyncio.get_running_loop(),
        asyncio.Event(),
        threading.Event(),
        getattr(of, name),
    )

    def held_back(*arguments: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(30)
        return run(*arguments, **options)

    monkeypatch.setattr(of, name, held_back)
    method, body = ("POST", {"json": {"all": True}}) if path.endswith("try") else ("GET", {})
    asked = asyncio.create_task(ask(served, "reader", method, path.format(id=id), **body))
    await begun.wait()
    assert not asked.done()
    assert (await ask(served, "viewer", "GET", "/livez")).status_code == 200
    go_on.set()
    assert (await asked).status_code == 200
