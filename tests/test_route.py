"""Route tables: matching of keys, and differences by value."""

from __future__ import annotations

from dataclasses import replace

from abe_router.routing.contract import SchemaBinding
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.schema import SchemaFolder


async def first(payload):
    """Do nothing."""


async def second(payload):
    """Do nothing, under another path."""


def route(key="orders.created", group="billing", **options):
    return Route(key=key, group=group, handler=handler_from(first), **options)


def test_a_key_matches_its_own_routes_and_those_on_patterns_in_the_order_of_the_file():
    table = RouteTable(routes=(route("#", "all"), route(), route("orders.*", "any"), route("x")))
    assert [r.name for r in table.match("orders.created")] == [
        "#/all",
        "orders.created/billing",
        "orders.*/any",
    ]
    assert table.match("orders.created") is table.match("orders.created")


def test_contract_has_each_schema_of_matching_entries_once(tmp_path):
    schemas = SchemaFolder(tmp_path)
    order, event = schemas.inline({"type": "object"}, "a"), schemas.inline({"type": "array"}, "b")
    table = RouteTable(
        bindings=(
            SchemaBinding("orders.created", order),
            SchemaBinding("orders.#", event),
            SchemaBinding("#", order),
        )
    )
    assert table.contract("orders.created").schemas == (order, event)
    assert table.contract("x").schemas == (order,)


def test_a_table_knows_the_keys_of_its_file():
    table = RouteTable(keys=("orders.created", "github.*"))
    assert table.contract("orders.created").known
    assert table.contract("github.push").known
    assert not table.contract("orders.paid").known


def test_diff_pairs_routes_by_key_and_group_and_compares_values():
    kept, gone, old = route(), route(group="gone"), route(group="audit")
    new, added = replace(old, concurrency=2), route(group="added")
    diff = RouteTable(routes=(kept, gone, old)).diff(RouteTable(routes=(added, replace(kept), new)))
    assert (diff.added, diff.removed, diff.changed, diff.kept) == ((added,), (gone,), ((old, new),), (kept,))


def test_another_handler_path_is_a_change_and_new_code_under_the_same_path_is_not():
    one = route()
    assert one != replace(one, handler=handler_from(second))
    assert one == replace(one, handler=replace(handler_from(second), path=one.handler.path))


def test_without_a_limit_deliveries_may_exceed_attempts_by_five():
    assert route().delivery_limit == 10
    assert route(max_deliveries=3).delivery_limit == 3
