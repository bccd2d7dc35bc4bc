"""The OpenAPI document: valid, complete, and true of the answers."""

from __future__ import annotations

import json
import re

import jsonschema
from openapi_spec_validator import OpenAPIV31SpecValidator

from abe_router.backend import Dead, DeadLetter, Reason
from abe_router.backends import make_backend
from abe_router.http.app import make_app
from abe_router.http.endpoint import Endpoint
from abe_router.http.openapi import openapi_document
from abe_router.http.security import Security
from abe_router.http.site import Site
from abe_router.operations.access import load_table
from abe_router.routing.table import RouteTable
from tests.limits import HANG

from .running import FixedSource, serving


def application():
    return make_app(Site(FixedSource(RouteTable(), make_backend("memory://")), Security()))


def test_document_is_valid_openapi_3_1():
    document = json.loads(json.dumps(openapi_document(application().routes)))
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert document["openapi"] == "3.1.0"


def test_every_route_of_the_api_is_in_the_document():
    routes = application().routes
    undescribed = [r.path for r in routes if r.path.startswith("/v1") and not isinstance(r, Endpoint)]
    assert undescribed == []
    document = openapi_document(routes)
    routed = {
        (route.method.lower(), re.sub(r":\w+}", "}", route.path))
        for route in routes
        if isinstance(route, Endpoint)
    }
    described = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert described == routed
    names = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert sorted(set(names)) == sorted(names)


async def test_answers_have_the_form_that_the_document_says(tmp_path):
    (tmp_path / "routes.yaml").write_text(
        "routes: {orders.created: {dedupe: 1h, consumers: {billing: 'examples.shop:charge'}}}"
    )
    async with serving(load_table(tmp_path / "routes.yaml"), make_backend("memory://")) as api:
        subscription = await api.source.backend.subscribe("orders.created", "billing")
        document = (await api.get("/v1/openapi.json")).json()
        explained = {"key": "orders.created", "payload": {}}
        requests = {
            ("get", "/v1/status"): await api.get("/v1/status"),
            ("get", "/v1/routes"): await api.get("/v1/routes"),
            ("get", "/v1/routes/{key}/{group}"): await api.get("/v1/routes/orders.created/billing"),
            ("get", "/v1/workers"): await api.get("/v1/workers"),
            ("post", "/v1/explain"): await api.post("/v1/explain", json.dumps(explained)),
            ("post", "/v1/publish/{key}"): await api.post("/v1/publish/orders.created", b"{}"),
            ("post", "/v1/publish"): await api.post("/v1/publish", b"{}"),
        }
        await subscription.close()
    for (method, path), answer in requests.items():
        described = document["paths"][path][method]["responses"][str(answer.status_code)]
        schema = described["content"][answer.headers["content-type"]]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
    assert [answer.status_code for answer in requests.values()] == [200, 200, 200, 200, 200, 202, 415]


async def test_every_reading_endpoint_answers_in_its_form(tmp_path):
    (tmp_path / "routes.yaml").write_text(
        "http: {republish: true}\n"
        "routes: {orders.created: {consumers: {billing: 'examples.shop:charge'}}, orders.paid: {}}"
    )
    values = {"key": "orders.created", "group": "billing"}
    async with serving(load_table(tmp_path / "routes.yaml"), make_backend("memory://")) as api:
        subscription = await api.source.backend.subscribe("orders.created", "billing")
        await api.source.backend.publish("orders.created", {"id": 1}, headers={"a": "b"})
        (delivery,) = await subscription.fetch(1, HANG)
        reason = Reason("failed", "ValueError", "no such order", traceback="Traceback: ValueError")
        letter = DeadLetter("orders.created/billing", delivery.message, reason, 1, 1, 1e9, 1.1e9)
        await subscription.settle([(delivery, Dead(letter))])
        (stored,) = await api.source.backend.dead_letters("orders.created", "billing")
        values["id"] = stored.id
        document = (await api.get("/v1/openapi.json")).json()
        answered = {}
        for path, methods in document["paths"].items():
            content = methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
            if not content or "text/event-stream" in content:
                continue
            answer = await api.get(re.sub(r"{(\w+)}", lambda name: values.get(name[1], "1"), path))
            described = methods["get"]["responses"][str(answer.status_code)]["content"]
            kind = answer.headers["content-type"]
            assert kind in described, path
            if "json" in kind:
                schema = described[kind]["schema"]
                jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
            answered[path] = answer.status_code
        await subscription.close()
    assert {path for path, status in answered.items() if status != 200} <= {
        "/v1/replays/{number}",
        "/v1/edits/{number}",
        "/v1/edits/{number}/diff",
    }
