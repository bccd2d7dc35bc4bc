"""The AsyncAPI document: valid, complete, without secrets, and as strict as the table."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from abe_router.operations.access import load_table
from abe_router.operations.asyncapi import asyncapi_document

from .asyncapi import check, message_of, validator

ROOT = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("ABE_ROUTER_CORPUS", "corpus-is-not-here"))

FILE = """
backend: memory://
routes:
  orders.created:
    schema: order.json
    description: A customer has ordered.
    tags: [orders, shop]
    owner: shop
    dedupe: 1h
    consumers:
      billing:
        handler: shop:charge
        concurrency: 3
        emit: orders.paid
        order_by: /customer
        when: {properties: {total: {$ref: 'money.json'}}}
      audit: shop:record
  orders.paid:
  orders.*:
    schema: envelope.json
    consumers: {index: shop:index}
  "#":
    consumers: {trail: shop:follow}
  a:b@c=d+e~f:
  a_b_c_d_e_f:
"""
SCHEMAS = {
    "order.json": {"type": "object", "properties": {"total": {"$ref": "money.json"}}, "required": ["total"]},
    "money.json": {"type": "number", "minimum": 0},
    "envelope.json": {"type": "object", "properties": {"customer": {"type": "string", "x-sensitive": True}}},
}


def table_of(folder: Path, text: str = FILE, schemas=SCHEMAS):
    (folder / "schemas").mkdir()
    for name, schema in schemas.items():
        (folder / "schemas" / name).write_text(json.dumps(schema))
    (folder / "routes.yaml").write_text(text)
    return load_table(folder / "routes.yaml")


@pytest.fixture
def document(tmp_path):
    return check(asyncapi_document(table_of(tmp_path)))


def test_each_key_and_pattern_is_a_channel(document):
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {
        "orders.created",
        "orders.paid",
        "orders.{word1}",
        "{rest}",
        "a:b@c=d+e~f",
        "a_b_c_d_e_f",
    }
    pattern = document["channels"]["orders.word1"]
    assert list(pattern["parameters"]) == ["word1"]
    assert pattern["x-abe-router"]["pattern"] == "orders.*"
    assert document["channels"]["rest"]["x-abe-router"]["pattern"] == "#"


def test_each_key_is_sent_and_each_route_receives(document):
    actions = {name: operation["action"] for name, operation in document["operations"].items()}
    assert actions == {
        **dict.fromkeys(["orders.created", "orders.paid", "a:b@c=d+e~f", "a_b_c_d_e_f"], "send"),
        **dict.fromkeys(["orders.created/billing", "orders.created/audit", "orders.*/index"], "receive"),
        "#/trail": "receive",
    }
    assert document["operations"]["orders.paid"]["x-abe-router"] == {"emittedBy": ["orders.created/billing"]}


def test_policies_and_metadata_are_in_the_document(document):
    billing = document["operations"]["orders.created/billing"]
    policies = billing["x-abe-router"]
    assert (policies["group"], policies["concurrency"], policies["emit"]) == ("billing", 3, "orders.paid")
    assert (policies["order_by"], policies["retry"]["attempts"]) == ("/customer", 5)
    assert policies["owner"] == "shop"
    channel = document["channels"]["orders.created"]
    assert channel["description"] == "A customer has ordered."
    assert channel["tags"] == [{"name": "orders"}, {"name": "shop"}]
    assert channel["x-abe-router"] == {"dedupe": 3600.0, "owner": "shop"}


def test_several_contracts_of_a_key_are_one_payload(document):
    message = document["components"]["messages"][message_of(document, "orders.created")]
    assert message["payload"] == {
        "allOf": [{"$ref": "#/components/schemas/order"}, {"$ref": "#/components/schemas/envelope"}]
    }
    schemas = document["components"]["schemas"]
    assert schemas["order"]["properties"]["total"] == {"$ref": "#/components/schemas/money"}
    assert schemas["envelope"]["properties"]["customer"]["x-sensitive"] is True
    headers = schemas["abe-router.headers"]["properties"]
    assert {"abe-hops", "abe-cause", "traceparent"} <= headers.keys()


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("memory://", {"host": "localhost", "protocol": "memory"}),
        ("sqlite:////srv/se@cret/shop.db", {"host": "unknown", "protocol": "sqlite"}),
        (
            "sqlite:////srv/folder/shop.db",
            {"host": "localhost", "protocol": "sqlite", "pathname": "/shop.db"},
        ),
        ("redis://ada:se@cret@h:1/2", {"host": "h:1", "protocol": "redis", "pathname": "/2"}),
        ("rediss://:secret@h/0?ssl_ca_certs=secret", {"host": "h", "protocol": "rediss", "pathname": "/0"}),
        ("redis://:se/cret@h/0", {"host": "unknown", "protocol": "redis"}),
        ("redis://h/0?password=x@secret", {"host": "unknown", "protocol": "redis"}),
        ("redis://:a?secret@h/0", {"host": "unknown", "protocol": "redis"}),
        ("redis://:a#secret@h/0", {"host": "unknown", "protocol": "redis"}),
    ],
)
def test_server_has_no_credentials(tmp_path, url, server):
    document = check(asyncapi_document(replace(table_of(tmp_path), backend=url)))
    assert document["servers"] == {"backend": server}
    assert "secret" not in json.dumps(document)


def test_document_of_a_limited_caller_names_no_other_key(tmp_path):
    table = table_of(tmp_path)
    document = check(asyncapi_document(table, shows=lambda key: key == "orders.created"))
    assert list(document["channels"]) == ["orders.created"]
    assert list(document["operations"]) == [
        "orders.created",
        "orders.created/billing",
        "orders.created/audit",
    ]
    assert "orders.paid" not in json.dumps(document)


@pytest.mark.parametrize("file", ["routes.yaml", "abe_router/cli/starter/routes.yaml"])
def test_payloads_of_the_tests_get_the_same_verdict_from_the_document_alone(file):
    table = load_table(ROOT / file)
    document = check(asyncapi_document(table))
    published = [message for case in table.cases for message in case.publish]
    assert published
    verdicts = set()
    for message in published:
        accepted = all(schema.is_valid(message.payload) for schema in table.contract(message.key).schemas)
        assert validator(document, message.key).is_valid(message.payload) is accepted, message
        verdicts.add(accepted)
    assert verdicts == {True, False}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="ABE_ROUTER_CORPUS names no folder")
def test_real_payloads_get_the_same_verdict_from_the_document_alone(tmp_path):
    folder = CORPUS / "github" if (CORPUS / "github").is_dir() else CORPUS
    lines = [json.loads(line) for line in (folder / "payloads.ndjson").read_text().splitlines()]
    schemas = sorted((folder / "schemas").glob("*.json"))
    keys = sorted({line["key"] for line in lines})
    entries = {key: {"schema": s.name} for s in schemas for key in keys if f"{key}.".startswith(f"{s.stem}.")}
    (tmp_path / "routes.yaml").write_text(
        json.dumps({"backend": "memory://", "schemas": str(folder / "schemas"), "routes": entries})
    )
    table = load_table(tmp_path / "routes.yaml")
    document = check(asyncapi_document(table))
    checks = {key: validator(document, key) for key in entries}
    verdicts = []
    for line in lines:
        if line["key"] in checks:
            accepted = all(s.is_valid(line["payload"]) for s in table.contract(line["key"]).schemas)
            assert checks[line["key"]].is_valid(line["payload"]) is accepted
            verdicts.append(accepted)
    assert {True, False} <= set(verdicts)
