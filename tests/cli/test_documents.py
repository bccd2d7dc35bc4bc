"""`asyncapi`, `graph`, and the metadata in `routes` and `explain`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from abe_router.operations.access import load_table
from abe_router.operations.graph import dot, graph_of, mermaid
from abe_router.operations.graph_svg import svg

from .conftest import Run

FILE = """
backend: memory://
routes:
  orders.created:
    owner: shop
    tags: [orders]
    schema: order.json
    consumers:
      billing:
        handler: shop_handlers:charge
        description: |
          Charges the customer.
          Once.
        owner: payments
        tags: [money, orders]
        when: {type: object}
        emit: orders.paid
      audit: shop_handlers:charge
  orders.paid: {owner: payments, schema: order.json}
"""


@pytest.fixture
def described(shop: Path) -> Path:
    """Return the folder of a routes file with metadata."""
    (shop / "routes.yaml").write_text(FILE)
    return shop


def test_routes_and_explain_print_metadata_in_one_line(described: Path, run: Run) -> None:
    heading, billing, *_, paid = run("routes").out.splitlines()
    assert heading.split()[-3:] == ["owner", "tags", "description"]
    assert "payments  orders, money  Charges the customer. Once." in billing
    assert paid.endswith("payments")
    assert run("routes", "--json").json[0]["owner"] == "payments"
    printed = run("explain", "orders.created", '{"id": 1, "total": 5}').out
    assert "  description: Charges the customer. Once.\n  owner: payments\n  tags: orders, money\n" in printed


def test_table_of_routes_without_metadata_has_no_columns_for_it(shop: Path, run: Run) -> None:
    assert run("routes").out.splitlines()[0].split()[-1] == "options"


def test_asyncapi_prints_the_same_document_as_yaml_and_as_json(described: Path, run: Run) -> None:
    printed = run("asyncapi").out
    assert "&id" not in printed  # an alias is valid YAML, but no reader expects it
    assert run("asyncapi", "--format", "json").json == yaml.safe_load(printed)


def test_asyncapi_escapes_what_could_reorder_a_line(shop: Path, run: Run) -> None:
    (shop / "routes.yaml").write_text('routes: {a: {description: "\\u202eX"}}')
    printed = run("asyncapi").out
    assert "\u202e" not in printed
    assert yaml.safe_load(printed)["channels"]["a"]["description"] == "\u202eX"


def test_asyncapi_warns_about_what_the_document_cannot_express(shop: Path, run: Run) -> None:
    (shop / "schemas" / "order.json").write_text('{"properties": {"x": {"const": {"$ref": "#/nowhere"}}}}')
    result = run("asyncapi")
    assert "warning: not in the document: `const` in order: its value has a member `$ref`" in result.err
    assert "nowhere" not in result.out


def test_graph_prints_each_format(described: Path, run: Run) -> None:
    graph = graph_of(load_table(described / "routes.yaml"))
    assert run("graph").out == f"{mermaid(graph)}\n"
    for form, render in (("dot", dot), ("svg", svg)):
        assert run("graph", "--format", form).out == f"{render(graph)}\n"
