"""Overrides, dropped routes and the audit over HTTP; and the metrics, the plan and the health."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from abe_router.errors import BackendUnavailable
from abe_router.runtime.activity import RouteActivity
from abe_router.runtime.edit_record import EditRecord
from abe_router.runtime.heartbeat import WORKERS, DiagnosticReport, RouteState, WorkerReport

from .serving import SECRET, Serving, add_dead_letter, ask


async def test_an_override_is_shown_recorded_and_ended(served: Serving) -> None:
    await (await served.backend.subscribe("orders.created", "billing")).close()
    body = {"route": "orders.created/billing", "action": "pause", "seconds": 60, "why": "gateway down"}
    assert (await ask(served, "viewer", "POST", "/v1/overrides", json=body)).status_code == 403
    other = {**body, "route": "payments.made/audit"}
    assert (await ask(served, "orders-operator", "POST", "/v1/overrides", json=other)).status_code == 403
    every = {**body, "route": "#/*"}
    assert (await ask(served, "orders-operator", "POST", "/v1/overrides", json=every)).status_code == 403
    paused = await ask(served, "orders-operator", "POST", "/v1/overrides", json=body)
    assert paused.status_code == 200, paused.text
    limited = {**body, "action": "limit", "rate": 5}
    assert (await ask(served, "operator", "POST", "/v1/overrides", json=limited)).status_code == 200
    found = (await ask(served, "viewer", "GET", "/v1/overrides")).json()
    assert [(each["action"], each["author"], each["why"]) for each in found] == [
        ("pause", "orders-operator", "gateway down"),
        ("limit", "operator", "gateway down"),
    ]
    for route in (await ask(served, "viewer", "GET", "/v1/routes")).json():
        paused = [each["action"] for each in route["overrides"]]
        assert paused == (["pause", "limit"] if route["route"] == "orders.created/billing" else [])
    asked = {"key": "orders.created", "payload": {"total": 5}}
    explained = (await ask(served, "viewer", "POST", "/v1/explain", json=asked)).json()
    assert "gateway down" in explained["routes"][0]["why"][0]
    path = "/v1/overrides/orders.created/billing"
    assert (await ask(served, "viewer", "DELETE", path)).status_code == 403
    assert (await ask(served, "operator", "DELETE", f"{path}?why=back")).status_code == 200
    assert (await ask(served, "viewer", "GET", "/v1/overrides")).json() == []
    acts = (await ask(served, "operator", "GET", "/v1/audit")).json()
    assert [(act["action"], act["author"], act["why"]) for act in acts] == [
        ("resume", "operator", "back"),
        ("limit", "operator", "gateway down"),
        ("pause", "orders-operator", "gateway down"),
    ]
    assert {act["source"] for act in acts} == {"http 127.0.0.1"}
    assert (await ask(served, "viewer", "GET", "/v1/audit")).status_code == 403
    assert (await ask(served, "orders-operator", "GET", "/v1/audit")).status_code == 403


async def test_malformed_overrides_are_refused(served: Serving) -> None:
    good = {"route": "orders.created/billing", "action": "pause", "why": "x"}
    for wrong in ({"rate": 5}, {"action": "limit"}, {"action": "limit", "rate": -1}, {"route": "../x"}):
        answer = await ask(served, "operator", "POST", "/v1/overrides", json={**good, **wrong})
        assert answer.status_code == 400, wrong
    for wrong in ({"seconds": -1}, {"why": ""}):
        answer = await ask(served, "operator", "POST", "/v1/overrides", json={**good, **wrong})
        assert answer.status_code == 409, wrong
    unknown = {**good, "route": "unknown/x"}
    assert (await ask(served, "operator", "POST", "/v1/overrides", json=unknown)).status_code == 404


async def test_a_route_is_dropped_by_an_admin_once_it_left_the_file(served: Serving) -> None:
    await (await served.backend.subscribe("former.key", "old")).close()
    for role in ("viewer", "operator"):
        assert (await ask(served, role, "DELETE", "/v1/routes/former.key/old")).status_code == 403
    assert (await ask(served, "admin", "DELETE", "/v1/routes/orders.created/billing")).status_code == 409
    assert (await ask(served, "admin", "DELETE", "/v1/routes/former.key/unknown")).status_code == 404
    assert (await ask(served, "admin", "DELETE", "/v1/routes/former.key/old")).status_code == 204
    assert all(status.pattern != "former.key" for status in await served.backend.status())


async def test_a_route_that_a_worker_serves_is_deleted_over_http_with_force_and_a_reason_only(
    served: Serving,
) -> None:
    await (await served.backend.subscribe("former.key", "old")).close()
    report = WorkerReport("far", 7, 0.0, "r", path="other.yaml", routes={"former.key/old": RouteState()})
    await served.backend.put(WORKERS, "far-7", msgspec.json.encode(report), ttl=60)
    path = "/v1/routes/former.key/old"
    purge = "/v1/dead-letters/former.key/old/purge"
    for refused in (
        await ask(served, "admin", "DELETE", path),
        await ask(served, "admin", "DELETE", f"{path}?force=false"),
        await ask(served, "operator", "POST", purge, json={"ids": ["1"]}),
    ):
        assert refused.status_code == 409
        assert "served by 1 worker: other.yaml on far, process 7" in refused.json()["detail"]
        assert "`force` with a reason in `why`" in refused.json()["hint"]
    for wrong in ("1", "True", "yes", ""):
        assert (await ask(served, "admin", "DELETE", f"{path}?why=x&force={wrong}")).status_code == 400, wrong
        body = {"ids": ["1"], "why": "x", "force": wrong}
        assert (await ask(served, "operator", "POST", purge, json=body)).status_code == 400, wrong
    assert (await ask(served, "admin", "DELETE", f"{path}?force=true")).status_code == 409  # no reason
    body = {"ids": ["1"], "why": "known", "force": True}
    assert (await ask(served, "operator", "POST", purge, json=body)).json() == {"requested": 1, "done": 0}
    assert (await ask(served, "admin", "DELETE", f"{path}?force=true&why=known")).status_code == 204
    acts = (await ask(served, "operator", "GET", "/v1/audit")).json()
    assert [(act["why"], act["result"].partition(":")[0]) for act in acts] == [("known", "forced")] * 2


async def test_metrics_are_public_on_the_second_listener_alone(served: Serving) -> None:
    await add_dead_letter(served, {"total": 1})
    assert (await ask(served, "", "GET", "/metrics")).status_code == 401
    assert (await ask(served, "publisher", "GET", "/metrics")).status_code == 403
    probes = served.server.probes_address
    async with httpx.AsyncClient(trust_env=False) as client:
        public = await client.get(f"http://{probes}/metrics")
    assert public.status_code == 200
    for answer in (public, await ask(served, "viewer", "GET", "/metrics")):
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        (dead,) = families["abe_router_dead"].samples
        assert (dead.labels, dead.value) == ({"key": "orders.created", "group": "billing"}, 1)


async def test_health_says_why_the_router_is_not_ready(served: Serving) -> None:
    assert (await ask(served, "viewer", "GET", "/healthz?verbose")).json()["ready"] is True
    served.draining = True
    health = await ask(served, "viewer", "GET", "/healthz?verbose")
    assert health.status_code == 503
    assert health.json()["draining"] is True
    assert (await ask(served, "", "GET", "/readyz")).text == "draining\n"
    assert (await ask(served, "", "GET", "/livez")).status_code == 200
    assert (await ask(served, "", "GET", "/healthz")).status_code == 401


async def test_verbose_health_names_the_problems_of_each_part(served: Serving) -> None:
    backend = served.backend
    for route in (("orders.created", "billing"), ("payments.made", "audit"), ("former.key", "old")):
        await (await backend.subscribe(*route)).close()
    await add_dead_letter(served, {"total": 1, "card": SECRET})
    pause = {"route": "payments.made/audit", "action": "pause", "why": "audit"}
    assert (await ask(served, "operator", "POST", "/v1/overrides", json=pause)).status_code == 200
    fault = DiagnosticReport("/app/routes.yaml", 7, 3, "E203", "there is no schema `order.jsn`")
    report = WorkerReport(
        host="h",
        pid=7,
        started_at=1.0,
        revision=served.table.revision,
        number=1,
        routes={"orders.created/billing": RouteState(connected=False)},
        rejected=(fault,),
        interval=3.0,
        activity={"orders.created/billing": RouteActivity(handled=3, retried=2)},
    )
    await backend.put("workers", "one", msgspec.json.encode(report), ttl=60)
    await backend.put("workers", "two", b"of another version", ttl=60)
    record = EditRecord(4, "rejected", "", str(served.table.path), "h", 7, 5.0, diagnostics=(fault, fault))
    await backend.put("edits", "4", msgspec.json.encode(record))

    assert "detail" not in (await ask(served, "viewer", "GET", "/healthz")).json()
    detail = (await ask(served, "viewer", "GET", "/healthz?verbose")).json()["detail"]
    assert detail["backend"] == {"url": "memory://", "problem": ""}
    edit = detail["edit"]
    assert (edit["number"], edit["state"], edit["diagnostics"]) == (4, "rejected", 2)
    assert edit["diagnostic"]["message"] == "there is no schema `order.jsn`"
    one, two = detail["workers"]
    assert (one["host"], one["pid"], one["connected"]) == ("h", 7, False)
    assert one["problems"] == [
        "1 route cannot reach the backend",
        "rejected the last edit: /app/routes.yaml:7: there is no schema `order.jsn`",
    ]
    assert two["problems"] == ["its report is of another version"]
    routes = {route["route"]: route for route in detail["routes"]}
    assert routes["orders.created/billing"]["failing"] is True
    assert routes["orders.created/billing"]["problems"] == [
        "1 of 1 worker cannot reach the backend",
        "2 of the last 5 attempts failed",
        "has 1 dead letter",
    ]
    no_worker, paused = routes["payments.made/audit"]["problems"]
    assert no_worker == "no worker runs it"
    assert paused.startswith("is paused until ")
    assert paused.endswith(" by operator: audit")
    assert routes["former.key/old"]["problems"] == ["is not in the file"]

    limited = (await ask(served, "orders-viewer", "GET", "/healthz?verbose")).json()["detail"]
    assert [route["route"] for route in limited["routes"]] == ["orders.created/billing"]
    assert (limited["edit"], limited["workers"]) == (None, [])
    assert (await ask(served, "publisher", "GET", "/healthz?verbose")).status_code == 403
    async with httpx.AsyncClient(trust_env=False) as client:
        public = await client.get(f"http://{served.server.probes_address}/healthz?verbose")
    assert public.status_code == 404


async def test_verbose_health_says_that_the_backend_does_not_answer(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable() -> Any:
        raise BackendUnavailable("cannot reach redis://user:secret@host")

    monkeypatch.setattr(served.backend, "status", unreachable)
    health = await ask(served, "viewer", "GET", "/healthz?verbose")
    assert health.status_code == 200
    assert health.json()["detail"]["backend"]["problem"] == "cannot reach redis://***@host"
    assert health.json()["detail"]["routes"] == []


async def test_plan_of_an_unchanged_file_keeps_every_route(served: Serving) -> None:
    plan = (await ask(served, "viewer", "GET", "/v1/plan")).json()
    assert plan["keep"] == ["orders.created/billing", "payments.made/audit"]
    assert plan["start"] == plan["stop"] == []


async def test_twenty_clients_cost_one_status_of_the_backend(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    calls = []
    read = served.backend.status

    async def counted() -> Any:
        calls.append(1)
        return await read()

    monkeypatch.setattr(served.backend, "status", counted)
    answers = await asyncio.gather(*(ask(served, "viewer", "GET", "/v1/status") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(calls) == 1
