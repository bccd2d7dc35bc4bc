"""Paths of a routes file that the schemas of its keys forbid or do not name."""

from __future__ import annotations

import json

import pytest

from abe_router.config.building.loader import Loader
from abe_router.config.rules import paths
from abe_router.errors import ConfigError

ORDER = {"additionalProperties": False, "required": ["id"], "properties": {
    "id": {"type": "string"}, "total": {"type": "number"},
    "customer": {"type": "object", "properties": {"id": {}, "email": {}}},
    "notes": {"type": "object"}}}  # fmt: skip
TICK = {"additionalProperties": False, "properties": {"at": {"type": "number"}}}
MARKS = {"properties": {"customer": {"properties": {"email": {"x-sensitive": True}}}}}


@pytest.fixture
def found(tmp_path):
    """Return a function that loads routes and returns the findings: code, line, first words, hint."""
    (tmp_path / "schemas").mkdir()
    for name, schema in {"order": ORDER, "tick": TICK, "marks": MARKS}.items():
        (tmp_path / f"schemas/{name}.json").write_text(json.dumps({"type": "object", **schema}))

    def load(routes, defaults="{}"):
        path = tmp_path / "routes.yaml"
        path.write_text(f"backend: memory://\ndefaults: {defaults}\nroutes:\n{routes}")
        try:
            given = Loader(path, import_handlers=False, env={}).load().warnings
        except ConfigError as error:
            given = error.diagnostics
        return [(each.code, each.line, each.message, each.hint) for each in given]

    return load


def order(options):
    return f"  orders.created: {{schema: order.json, consumers: {{a: {{handler: 'm:f', {options}}}}}}}\n"


TICKS = "  ticks.made: {schema: tick.json, consumers: {a: 'm:f'}}\n"


@pytest.mark.parametrize(
    "options",
    ["order_by: /customer/id", "order_by: /notes/any/thing", "when: {required: [total]}", "order_by: /id",
     "when: {anyOf: [{properties: {notes: {properties: {x: {}}}}}, {not: {required: [customer]}}]}"],
)  # fmt: skip
def test_path_that_the_schema_names_or_leaves_open_is_right(found, options):
    assert found(order(options)) == []


@pytest.mark.parametrize(
    ("options", "code", "path", "hint"),
    [
        ("order_by: /customr/id", "R116", "does not allow `/customr`", "did you mean `/customer/id`?"),
        ("order_by: /id/x", "R116", "says that `/id` is `string`", ""),
        ("order_by: /customer/emial", "W120", "does not name", "did you mean `/customer/email`?"),
        ("when: {properties: {totl: {minimum: 1}}}", "R116", "does not allow", "did you mean `/total`?"),
        ("when: {not: {required: [totl]}}", "R116", "does not allow `/totl`", "did you mean `/total`?"),
        ("when: {properties: {customer: {required: [name]}}}", "W120", "`/customer/name`", "correct it"),
        ("when: {$ref: '#/$defs/a', $defs: {a: {required: [totl]}}}", "R116", "`/totl`", "did you mean"),
    ],
)
def test_wrong_path_is_reported_where_it_is_written(found, options, code, path, hint):
    ((given, line, message, said),) = found(order(options))
    assert (given, line) == (code, 4)
    assert path in message
    assert said.startswith(hint)


@pytest.mark.parametrize(
    ("pointer", "code"),
    [("/id", None), ("/total", None), ("/customer", "R116"), ("/customer/id", None), ("/notes", "R116")],
)
def test_id_must_be_a_text_or_a_number(found, pointer, code):
    routes = f"  orders.created: {{schema: order.json, id: {pointer}}}\n" + TICKS
    assert [each[0] for each in found(routes)] == ([code] if code else [])


def test_wrong_path_of_the_defaults_is_reported_once_and_can_be_taken_back(found):
    ((code, line, message, hint),) = found(
        order("timeout: 1s") + TICKS + TICKS.replace("made", "read"), "{order_by: /customer/id}"
    )
    assert (code, line) == ("R116", 2)
    assert message.startswith("no message of `ticks.made`")
    assert hint.endswith("`order_by: null` says so")
    assert (
        found(
            order("timeout: 1s") + TICKS.replace("'m:f'", "{handler: 'm:f', order_by: null}"),
            "{order_by: /customer/id}",
        )
        == []
    )


def test_order_of_a_pattern_is_a_fault_only_if_no_key_can_have_it(found):
    pattern = "  '#': {consumers: {b: {handler: 'm:f', order_by: /customer/id}}}\n"
    ((code, line, message, _),) = found(order("timeout: 1s") + TICKS + pattern)
    assert (code, line, message.split("`")[1]) == ("W120", 6, "ticks.made")
    assert [each[0] for each in found(TICKS + pattern)] == ["R116"]


def test_id_of_a_pattern_is_a_fault_if_one_key_cannot_have_it(found):
    assert [each[:2] for each in found(order("timeout: 1s") + TICKS + "  '#': {id: /id}\n")] == [("R116", 6)]


def test_filter_of_a_pattern_may_choose_among_its_keys(found):
    pattern = "  '#': {{consumers: {{b: {{handler: 'm:f', when: {{required: [{}]}}}}}}}}\n"
    assert found(order("timeout: 1s") + TICKS + pattern.format("total")) == []
    assert [each[0] for each in found(order("timeout: 1s") + TICKS + pattern.format("totl"))] == ["R116"]


def test_sensitive_mark_of_a_pattern_must_be_on_what_a_key_has(found, tmp_path):
    routes = order("timeout: 1s") + TICKS + "  '#': {schema: marks.json}\n"
    assert found(routes) == []
    path = tmp_path / "schemas/marks.json"
    path.write_text(path.read_text().replace("email", "emial"))
    ((code, line, _, hint),) = found(routes)
    assert (code, line, hint) == ("W120", 6, "did you mean `/customer/email`?")
    path.write_text(path.read_text().replace("customer", "custom"))
    assert [each[:2] for each in found(routes)] == [("R116", 6)]


def test_paths_are_possible_when_the_time_for_a_file_is_over(found, monkeypatch):
    monkeypatch.setattr(paths, "MAX_TIME", -1.0)
    assert found(order("order_by: /customr/id")) == []
