"""`description`, `tags` and `owner` of keys and consumers: where they are shown, what they change."""

from __future__ import annotations

import pytest

from abe_router.operations.access import load_table
from abe_router.operations.explain import explain
from abe_router.operations.routes import describe_routes, unconsumed_keys
from abe_router.routing.table import Metadata

PLAIN = """
backend: memory://
routes:
  orders.created:
    consumers:
      billing: examples.shop:charge
      audit:
        handler: examples.shop:record
  orders.paid:
"""
DESCRIBED = """
backend: memory://
routes:
  orders.created:
    description: A customer has ordered.
    owner: shop
    tags: [orders]
    consumers:
      billing:
        handler: examples.shop:charge
        description: |
          Charges the customer.
          Once.
        owner: payments
        tags: [money, orders]
      audit:
        handler: examples.shop:record
  orders.paid:
    owner: payments
"""


@pytest.fixture
def tables(tmp_path):
    """Return the table of the plain file and that of the same file with metadata."""
    loaded = []
    for name, text in (("plain.yaml", PLAIN), ("routes.yaml", DESCRIBED)):
        (tmp_path / name).write_text(text)
        loaded.append(load_table(tmp_path / name))
    return loaded


def test_route_has_the_metadata_of_its_key_unless_it_has_its_own(tables):
    _, table = tables
    assert table.metadata_of("orders.created") == Metadata("A customer has ordered.", ("orders",), "shop")
    assert table.metadata_of("orders.created/billing") == Metadata(
        "Charges the customer.\nOnce.\n", ("orders", "money"), "payments"
    )
    assert table.metadata_of("orders.created/audit") == Metadata(
        "A customer has ordered.", ("orders",), "shop"
    )
    assert table.metadata_of("orders.unknown") == Metadata()


def test_edit_of_metadata_keeps_every_consumer_and_changes_the_revision(tables):
    plain, described = tables
    diff = plain.diff(described)
    assert [route.name for route in diff.kept] == ["orders.created/billing", "orders.created/audit"]
    assert (diff.added, diff.removed, diff.changed) == ((), (), ())
    assert plain.revision != described.revision


def test_operations_show_metadata(tables):
    _, table = tables
    billing, audit = describe_routes(table)
    assert (billing.owner, billing.tags, audit.owner) == ("payments", ("orders", "money"), "shop")
    assert [key.metadata.owner for key in unconsumed_keys(table)] == ["payments"]
    explanation = explain(table, "orders.created", b"{}")
    assert explanation.metadata.description == "A customer has ordered."
    assert [route.metadata.owner for route in explanation.routes] == ["payments", "shop"]
