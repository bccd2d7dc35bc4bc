"""The OpenAPI document: valid, complete, and true of the answers."""

from __future__ import annotations

import json
import re

import jsonschema
from openapi_spec_validator import OpenAPIV31SpecValidator

from abe_router.backends import make_backend
from abe_router.http.app import make_app
from abe_router.http.endpoint import Endpoint
from abe_router.http.openapi import openapi_document
from abe_router.http.security import Security
from abe_router.http.site import Site
from abe_router.operations.access import load_table
from abe_router.routing.table import RouteTable

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
