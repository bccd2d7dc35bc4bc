"""Handlers with an annotated payload: the conversion, and the warnings of `check` about schemas."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import typing
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError, PayloadUnfit
from abe_router.routing.handler import handler_from
from abe_router.schema.payload_type import AnnotationUnusable, payload_type_of
from abe_router.testing import TestRouter

T = TypeVar("T")


@dataclasses.dataclass
class Line:
    name: str
    count: int = 1


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Line] = dataclasses.field(default_factory=list)
    at: datetime | None = None


class TypedOrder(TypedDict):
    id: int
    lines: typing.NotRequired[list[Line]]


class StructOrder(msgspec.Struct):
    id: int
    lines: list[Line] = []


class ModelLine(pydantic.BaseModel):
    name: str


class ModelOrder(pydantic.BaseModel):
    id: int
    lines: list[ModelLine] = []


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class Paid(msgspec.Struct, tag=True):
    id: int


class Refused(msgspec.Struct, tag=True):
    why: str


class Unsupported:
    """A type that no payload can be converted to."""


@dataclasses.dataclass
class Odd:
    unsupported: Unsupported


@dataclasses.dataclass
class Mixed:
    line: ModelLine


class Reading(typing.Protocol):
    id: int


def by(annotation):
    """Return a handler whose payload has the annotation."""

    def handle(payload): ...

    handle.__annotations__ = {"payload": annotation}
    return handle


def converted(annotation, payload):
    found = payload_type_of(by(annotation))
    assert found is not None
    return found.convert(payload)


@pytest.mark.parametrize(
    ("annotation", "payload", "made"),
    [
        (Order, {"id": 7, "lines": [{"name": "pen"}]}, Order(7, [Line("pen")])),
        ("Order", {"id": 7}, Order(7)),
        (TypedOrder, {"id": 7, "other": 1}, {"id": 7}),
        (StructOrder, {"id": 7, "lines": [{"name": "pen"}]}, StructOrder(7, [Line("pen")])),
        (ModelOrder, {"id": 7, "lines": [{"name": "pen"}]}, ModelOrder(id=7, lines=[ModelLine(name="pen")])),
        (Order | None, None, None),
        (Order | None, {"id": 7}, Order(7)),
        (Paid | Refused, {"type": "Refused", "why": "no"}, Refused("no")),
        (Annotated[Order, "a remark"], {"id": 7}, Order(7)),
        (Page[Line], {"items": [{"name": "pen"}]}, Page([Line("pen")])),
        (list[Order], [{"id": 7}, {"id": 8}], [Order(7), Order(8)]),
        (Sequence[ModelOrder], [{"id": 7}], [ModelOrder(id=7)]),
        (Mixed, {"line": {"name": "pen"}}, Mixed(ModelLine(name="pen"))),
    ],
)
def test_payload_is_converted_to_the_annotated_type(annotation, payload, made):
    assert converted(annotation, payload) == made


def test_timestamp_is_parsed_for_a_datetime():
    assert converted(Order, {"id": 7, "at": "2026-01-31T09:00:00Z"}).at.year == 2026


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        dict,
        dict[str, Any],
        list,
        list[int],
        list[dict[str, Any]],
        str,
        int | None,
        None,
        T,
        Reading,
        "Mapping[str, Any]",
        "dict[str, Missing]",
        Order | dict,
    ],
    ids=str,
)
def test_other_annotations_convert_nothing(annotation):
    assert payload_type_of(by(annotation)) is None


@pytest.mark.parametrize(
    "annotation", [Odd, Unsupported, datetime, "Missing", "list[Missing]", "1 / 0"], ids=str
)
def test_annotation_that_cannot_be_used_is_refused_with_its_name(annotation):
    with pytest.raises(AnnotationUnusable) as caught:
        payload_type_of(by(annotation))
    assert caught.value.name == getattr(annotation, "__name__", annotation)


def test_handler_without_annotation_converts_nothing():
    assert handler_from(lambda payload: payload).payload_type is None
    assert handler_from(print).payload_type is None


def test_unresolvable_annotation_of_another_parameter_is_ignored():
    def handle(order: Order, message: Missing) -> Missing: ...  # noqa: F821

    assert handler_from(handle).payload_type.name == "Order"


def test_payload_type_of_methods_callables_and_partials_is_found():
    class Desk:
        def charge(self, order: Order): ...

        async def __call__(self, order: Order): ...

    def charge(rate: int, order: Order): ...

    for function in (Desk().charge, Desk(), functools.partial(charge, 3), functools.partial(Desk().charge)):
        assert handler_from(function).payload_type.name == "Order"


def test_payload_type_behind_a_wrapper_is_used_only_if_it_passes_its_arguments_on():
    def charge(order: Order): ...

    @functools.wraps(charge)
    def handing_on(*args, **options):
        return charge(*args, **options)

    @functools.wraps(charge)
    def making(order):
        return charge(Order(**order))

    assert handler_from(handing_on).payload_type.name == "Order"
    assert handler_from(making).payload_type is None


@pytest.mark.parametrize(
    ("annotation", "payload", "pointer", "keyword"),
    [
        (Order, {"id": "7"}, "/id", "type"),
        (Order, {}, "", "required"),
        (Order, [], "", "type"),
        (
            TypedOrder,
            {"id": 1, "lines": [{"name": 1}]},
            "/lines/0/name",
            "type",
        ),
        (StructOrder, {"id": 1, "lines": [{}]}, "/lines/0", "required"),
        (
            Page[dict[str, Line]],
            {"items": [{"a/b": {}}]},
            "/items/0/a~1b",
            "required",
        ),
        (Paid | Refused, {"type": "hunter2"}, "", "anyOf"),
        (ModelOrder, {"id": "hunter2"}, "/id", "type"),
        (
            ModelOrder,
            {"id": 1, "lines": [{}]},
            "/lines/0/name",
            "required",
        ),
        (Mixed, {"line": {}}, "/name", "required"),
    ],
)
def test_error_for_an_unfit_payload_has_its_pointer_but_not_its_value(annotation, payload, pointer, keyword):
    with pytest.raises(PayloadUnfit) as caught:
        converted(annotation, payload)
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    assert f"at {pointer or '(root)'}: it does not fit the type" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# --- in a route

ROUTES = """\
schemas: .
routes:
  orders.created:
    SCHEMA
    consumers: {billing: {handler: "typed_handlers:charge", OPTIONS}}
"""
HANDLERS = """\
from dataclasses import dataclass
from typing import Any
import msgspec
import pydantic
from abe_router import Message, Reject

@dataclass
class Line:
    name: str

@dataclass
class Order:
    id: int
    line: Line | None = None

    def __post_init__(self):
        if self.id == 13:
            raise KeyError("an unlucky number")

@dataclass
class Nested:
    line: Line

class Tagged(msgspec.Struct, tag=True):
    id: int

class Model(pydantic.BaseModel):
    id: int
    name: str = ""

class Aliased(pydantic.BaseModel):
    id: int = pydantic.Field(alias="number")
    model_config = {"populate_by_name": True}

class Reshaped(pydantic.BaseModel):
    id: int

    @pydantic.model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, value):
        return value["order"]

class Dated(pydantic.BaseModel):
    at: __import__("datetime").datetime

got = []
"""


@pytest.fixture
def write_routes(tmp_path, monkeypatch):
    """Return a function that writes a routes file with an annotated handler and returns its path."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "typed_handlers", raising=False)

    def write(annotation, schema=None, options="concurrency: 1", body="got.append(order)"):
        code = f"{HANDLERS}\nasync def charge(order: {annotation}):\n    {body}\n"
        (tmp_path / "typed_handlers.py").write_text(code)
        entry = ""
        if schema is not None:
            (tmp_path / "order.json").write_text(json.dumps(schema))
            entry = "schema: order.json"
        text = ROUTES.replace("SCHEMA", entry).replace("OPTIONS", options)
        (tmp_path / "routes.yaml").write_text(text)
        return tmp_path / "routes.yaml"

    return write


async def outcome(path, *payloads):
    async with TestRouter(path) as router:
        for payload in payloads:
            await router.publish("orders.created", payload)
        await router.quiet()
        return sys.modules["typed_handlers"].got, await router.dead("orders.created/billing")


async def test_handler_gets_its_type_and_an_unfit_payload_is_dead_lettered_as_invalid(write_routes):
    got, (dead,) = await outcome(write_routes("Order"), {"id": 7}, {"id": "x"})
    assert [order.id for order in got] == [7]
    reason = dead.reason
    assert (reason.kind, reason.error, reason.pointer, reason.keyword) == (
        "invalid",
        "PayloadUnfit",
        "/id",
        "type",
    )
    assert dead.attempts == 1


async def test_unfit_payload_of_a_batch_is_dead_lettered_alone(write_routes):
    path = write_routes("list[Order]", options="batch: {size: 3}", body="got.extend(order)")
    got, (dead,) = await outcome(path, {"id": 7}, {"id": "x"}, {"id": 8})
    assert [order.id for order in got] == [7, 8]
    assert dead.reason.pointer == "/id"


async def test_on_invalid_drop_drops_an_unfit_payload(write_routes):
    got, dead = await outcome(write_routes("Order", options="on_invalid: drop"), {"id": "x"})
    assert (got, dead) == ([], [])


async def test_other_error_of_the_type_is_a_failed_attempt(write_routes):
    _, (dead,) = await outcome(write_routes("Order", options="retry: {attempts: 3}"), {"id": 13})
    assert (dead.reason.kind, dead.reason.error, dead.attempts) == ("failed", "KeyError", 3)


# --- warnings of `check`


def warned(path):
    return [w.message.partition("the schema contradicts: ")[2] for w in Loader(path, env={}).load().warnings]


def an_object(required=(), **properties):
    return {"type": "object", "required": list(required), "properties": properties}


INT, TEXT = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("annotation", "schema", "expected"),
    [
        ("Order", an_object(["id"], id=TEXT), "at /id the type needs `integer`, the schema has `string`"),
        ("Order", an_object(id=INT), "at /id the type requires a value, but the schema does not"),
        (
            "Order",
            an_object(name=TEXT) | {"additionalProperties": False},
            "at /id the type requires a value, but the schema does not allow it",
        ),
        (
            "Nested",
            an_object(["line"], line=an_object(["name"], name=INT)),
            "at /line/name the type needs `string`, the schema has `integer`",
        ),
        (
            "Nested",
            an_object(["line"], line=an_object(name=TEXT)),
            "at /line/name the type requires a value, but the schema does not",
        ),
        ("Tagged", an_object(["id"], id=INT), "at /type the type requires a value, but the schema does not"),
        (
            "Model",
            an_object(["id"], id=INT, name=INT),
            "at /name the type needs `string`, the schema has `integer`",
        ),
        ("Model", an_object(id=INT), "at /id the type requires a value, but the schema does not"),
    ],
)
def test_type_that_contradicts_the_schema_is_a_warning(write_routes, annotation, schema, expected):
    assert warned(write_routes(annotation, schema)) == [expected]


@pytest.mark.parametrize(
    ("annotation", "schema"), [("Order", {"type": "array"}), ("list[Order]", an_object())], ids=str
)
def test_type_that_no_message_has_is_an_error(write_routes, annotation, schema):
    with pytest.raises(ConfigError) as caught:
        Loader(write_routes(annotation, schema), env={}).load()
    assert [fault.code for fault in caught.value.diagnostics] == ["R307"]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("Order", None),
        ("Order", {}),
        ("Order", True),
        ("Order", {"type": "object"}),
        ("Order", an_object(["id"], id=INT)),
        ("Order", an_object(["id"], id={"type": "number"})),
        ("Order", an_object(["id"], id={"type": ["integer", "string"]})),
        ("Order", an_object(["id"], id={"enum": [1, 2]})),
        ("Order", an_object(["id"], id=True)),
        ("Order", an_object(id=INT) | {"allOf": [{"required": ["id"]}]}),
        ("Order", an_object(id=INT) | {"anyOf": [{"required": ["id"]}, {"required": ["id", "x"]}]}),
        ("Order", {"$ref": "#/$defs/o", "$defs": {"o": an_object(["id"], id=INT)}}),
        (
            "Order",
            an_object(name=TEXT)
            | {"additionalProperties": False, "patternProperties": {"^i": INT}, "required": ["id"]},
        ),
        ("Order", an_object(["id"], id=INT, line={"type": "null"})),
        ("Order", an_object(["id"], id=INT, line={"anyOf": [{"type": "null"}, {"type": "object"}]})),
        ("Nested", an_object(["line"], line={"$ref": "#/$defs/l"}) | {"$defs": {"l": an_object()}}),
        (
            "Nested",
            an_object(["line"], line=an_object(name=TEXT))
            | {"allOf": [{"properties": {"line": {"required": ["name"]}}}]},
        ),
        ("Model", an_object(["id"], id=TEXT)),
        ("Aliased", an_object(["id"], id=INT)),
        ("Reshaped", an_object(["order"], order={})),
        ("Dated", an_object(["at"], at=INT)),
        ("dict[str, Any]", an_object(id=TEXT)),
        ("list[Order]", {"type": "array", "items": an_object(id=TEXT)}),
    ],
)
def test_type_that_may_fit_the_schema_is_no_warning(write_routes, annotation, schema):
    assert warned(write_routes(annotation, schema)) == []


def test_filter_is_considered_when_type_and_schema_are_compared(write_routes):
    assert warned(write_routes("Order", an_object(id=INT), "when: {required: [id]}")) == []


def test_item_type_of_a_batch_is_compared_with_the_schema(write_routes):
    path = write_routes("list[Order]", an_object(id=INT), "batch: {size: 3}")
    assert warned(path) == ["at /id the type requires a value, but the schema does not"]


def test_batch_route_with_the_type_of_one_payload_is_a_warning(write_routes):
    (warning,) = Loader(write_routes("Order", an_object(["id"], id=INT), "batch: {size: 3}")).load().warnings
    assert warning.code == "W111"


def test_schema_of_one_key_gives_no_warning_for_a_pattern(write_routes):
    path = write_routes("Order", an_object(id=TEXT))
    text = path.read_text().replace("    consumers", "  orders.*:\n    consumers")
    path.write_text(text)
    assert warned(path) == []
