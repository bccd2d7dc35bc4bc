"""`GET /v1/asyncapi.json`: the document of the keys that the caller may see."""

from __future__ import annotations

from dataclasses import replace

from abe_router.backends import make_backend
from abe_router.http.access import Caller, Role
from abe_router.operations.access import load_table
from abe_router.operations.asyncapi import asyncapi_document

from .running import serving

FILE = "routes: {orders.created: {consumers: {billing: 'examples.shop:charge'}}, payments.settled: }"


async def test_viewer_gets_the_document_of_the_table_in_force(tmp_path):
    (tmp_path / "routes.yaml").write_text(FILE)
    table = load_table(tmp_path / "routes.yaml")
    callers = {
        "viewer": Caller("viewer", frozenset({Role.VIEWER})),
        "limited": Caller("limited", frozenset({Role.VIEWER}), ("orders.#",)),
        "publisher": Caller("publisher", frozenset({Role.PUBLISHER})),
    }
    async with serving(table, make_backend("memory://"), callers) as api:
        answer = await api.get("/v1/asyncapi.json", token="viewer")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == asyncapi_document(table)
        limited = (await api.get("/v1/asyncapi.json", token="limited")).json()
        assert list(limited["channels"]) == ["orders.created"]
        assert (await api.get("/v1/asyncapi.json", token="publisher")).status_code == 403
        api.source.table = replace(table, keys=("orders.created",))
        after = (await api.get("/v1/asyncapi.json", token="viewer")).json()
        assert list(after["channels"]) == ["orders.created"]
