"""The options `id` and `dedupe` of a key."""

from __future__ import annotations

import json

import msgspec
import pytest

from abe_router.backend import Features
from abe_router.config.building.loader import Loader
from abe_router.config.language.forms import read_form
from abe_router.config.language.model import FileModel
from abe_router.config.reading.code import Code
from abe_router.config.reading.document import read_document
from abe_router.config.reading.faults import Faults
from abe_router.config.rules.ids import id_findings
from abe_router.errors import ConfigError
from abe_router.messages.dedupe import Deduplication
from abe_router.routing.contract import SchemaBinding
from abe_router.schema import SchemaFolder


def load(folder, text):
    path = folder / "routes.yaml"
    path.write_text(f"backend: memory://\n{text}")
    return Loader(path, import_handlers=False, env={}).load()


def test_overlapping_entries_combine_their_deduplication(tmp_path):
    table = load(
        tmp_path,
        """
routes:
  orders.created: {id: /order_id, dedupe: 10m}
  orders.#: {dedupe: 1h}
  payments.*: {id: Idempotency-Key}
  stock.low:
""",
    )
    assert table.contract("orders.created").deduplication == Deduplication(3600.0, "/order_id")
    assert table.contract("orders.paid").deduplication == Deduplication(3600.0)
    assert table.contract("payments.settled").deduplication == Deduplication(0.0, "Idempotency-Key")
    assert table.contract("stock.low").deduplication is None
    assert table.warnings == ()


def test_table_without_ids_deduplicates_nothing(tmp_path):
    table = load(tmp_path, "routes: {orders.created: {}}")
    assert table.contract("orders.created").deduplication is None
    assert table.contract("orders.created").window("7") == 0.0


def test_overlapping_entries_with_two_id_sources_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"comes from `/id` here, but from `/order_id` in `orders.created`"):
        load(tmp_path, "routes: {orders.created: {id: /order_id}, '*.created': {id: /id}}")
    load(tmp_path, "routes: {orders.created: {id: /order_id}, '*.paid': {id: /id}, 'orders.#': {}}")


def test_emitted_message_has_the_deduplication_of_its_key(tmp_path):
    table = load(
        tmp_path,
        """
routes:
  orders.created: {consumers: {pricing: {handler: shop:price, emit: orders.priced}}}
  orders.priced: {id: /id}
  "#": {dedupe: 1m}
""",
    )
    (route,) = table.routes
    assert route.emit.contract.deduplication == Deduplication(60.0, "/id")
    assert route.emit.window == 60.0


@pytest.mark.parametrize("window", ["0s", "10", "-1m"])
def test_window_that_is_not_a_positive_duration_is_refused(tmp_path, window):
    with pytest.raises(ConfigError, match="`dedupe` expects a duration"):
        load(tmp_path, f"routes: {{orders.created: {{dedupe: {window}}}}}")


@pytest.mark.parametrize("source", ["$.order_id", "", "a header", "/a~2", "order/id"])
def test_id_source_that_is_neither_pointer_nor_header_is_refused(tmp_path, source):
    with pytest.raises(ConfigError, match="`id` expects a JSON pointer or the name of a header"):
        load(tmp_path, f"routes: {{orders.created: {{id: {json.dumps(source)}}}}}")


def findings(tmp_path, entry, schema, *, features=None):
    bindings = [SchemaBinding("orders.#", SchemaFolder(tmp_path).inline(schema, "order.json"))]
    routes = {"routes": {"orders.created": entry}}
    root = read_document(json.dumps(routes).encode(), {}, Faults(tmp_path / "routes.yaml"))
    options = {root.span_at(["routes", "orders.created", option]): option for option in entry}
    found = id_findings(msgspec.convert(routes, FileModel, dec_hook=read_form), bindings, features, root)
    return [(finding.code, options[finding.span], finding.message) for finding in found]


def test_header_that_is_named_as_a_member_of_the_payload_is_a_warning(tmp_path):
    schema = {"properties": {"id": {"type": "string"}}}
    ((code, option, message),) = findings(tmp_path, {"id": "id"}, schema)
    assert (code, option) == (Code.ID_NOWHERE, "id")
    assert "has a member with that name" in message
    assert findings(tmp_path, {"id": "/id"}, schema) == findings(tmp_path, {"id": "/id"}, True) == []


def test_dedupe_on_a_backend_without_it_is_a_warning(tmp_path):
    found = findings(tmp_path, {"dedupe": "1m"}, True, features=Features(dedupe=False))
    assert found == [(Code.BACKEND_CANNOT, "dedupe", "`dedupe` has no effect: the backend remembers no ids")]
    assert findings(tmp_path, {"id": "/id"}, True, features=Features(dedupe=False)) == []


@pytest.mark.parametrize(
    ("routes", "codes"),
    [
        ("{orders.created: {schema: o.json, dedupe: 1m}}", ["W118"]),
        ("{orders.created: {schema: o.json, dedupe: 1m}, orders.*: {id: /order_id}}", []),
        ("{orders.created: {schema: o.json, dedupe: 1m, id: /order_id}}", []),
        ("{orders.created: {dedupe: 1m}}", []),
        ("{'#': {dedupe: 1m}, orders.created: {schema: o.json}}", []),
        ("{orders.created: {schema: other.json, dedupe: 1m}}", []),
    ],
)
def test_deduplication_of_messages_that_have_an_id_elsewhere_is_a_warning(tmp_path, routes, codes):
    (tmp_path / "schemas").mkdir()
    required = {
        "required": ["total", "order_id"],
        "properties": {"order_id": {"type": "string"}, "total": {}},
    }
    (tmp_path / "schemas" / "o.json").write_text(json.dumps(required))
    (tmp_path / "schemas" / "other.json").write_text(json.dumps({**required, "required": ["total"]}))
    assert [warning.code for warning in load(tmp_path, f"routes: {routes}").warnings] == codes


@pytest.mark.parametrize(
    ("one", "other", "target", "codes"),
    [
        ("a.b", "a.b", "id: request-id, dedupe: 1m", ["W119"]),
        ("a.b", "a.*", "id: request-id, dedupe: 1m", ["W119"]),
        ("a.b", "a.c", "id: request-id, dedupe: 1m", []),
        ("a.b", "a.b", "id: request-id", []),
        ("a.b", "a.c", "id: Ce-Id", ["W119", "W119"]),
        ("a.b", "a.b", "id: /id, dedupe: 1m", []),
    ],
)
def test_routes_that_emit_one_id_for_one_message_are_a_warning(tmp_path, one, other, target, codes):
    routes = {one: "g: {handler: 'shop:f', emit: x.y}"}
    routes[other] = ", ".join([*filter(None, [routes.get(other)]), "h: {handler: 'shop:f', emit: x.y}"])
    entries = ", ".join(f"'{key}': {{consumers: {{{consumers}}}}}" for key, consumers in routes.items())
    found = load(tmp_path, f"routes: {{{entries}, x.y: {{{target}}}}}").warnings
    assert [warning.code for warning in found if warning.code != "W101"] == codes
