"""Payloads with their schemas: small orders, GitHub events or synthetic ones, and orders of a given size."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs

Kind = Literal["order", "event", "1 KB", "10 KB", "100 KB", "500 KB"]

#: The kinds that differ in size alone, with their bytes of JSON.
SIZES: dict[Kind, int] = {"1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "500 KB": 500_000}

#: Target size of an event, in bytes of JSON.
EVENT_SIZE = 10_000
#: Number of different orders.
ORDERS = 200

_MONEY = {"type": "number", "minimum": 0}
_ORDER_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["id", "customer", "total", "currency", "lines", "sent"],
    "properties": {
        "id": {"type": "string", "pattern": "^o-[0-9]+$"},
        "customer": {"type": "string", "minLength": 1},
        "total": _MONEY,
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "lines": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["sku", "quantity"],
                "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}},
                "additionalProperties": False,
            },
        },
        "sent": {"type": "integer"},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Payloads:
    """Valid payloads of one kind, and their schema."""

    values: tuple[dict[str, Any], ...]
    schema: dict[str, Any]

    @cached_property
    def is_valid(self) -> Callable[[Any], bool]:
        """The compiled check, which all contenders use."""
        return jsonschema_rs.validator_for(self.schema, offline=True, validate_formats=True).is_valid

    def check(self, value: Any) -> None:
        """Raise ValueError when the value breaks the schema."""
        if not self.is_valid(value):
            raise ValueError("the payload breaks its schema")

    @property
    def size(self) -> int:
        """The mean size in bytes of JSON."""
        return sum(len(_compact(value)) for value in self.values) // len(self.values)


def payloads(kind: Kind) -> Payloads:
    """Return the payloads of a kind, the same in every process.

    Events come from the folder in the environment variable ABE_ROUTER_CORPUS, which contains
    `payloads.ndjson` and `schemas/KEY.json`. Without the variable they are synthetic.
    """
    if kind == "order":
        return Payloads(tuple(map(_order, range(ORDERS))), _ORDER_SCHEMA)
    if kind in SIZES:
        return _synthetic(SIZES[kind])
    folder = os.environ.get("ABE_ROUTER_CORPUS", "")
    return _corpus(Path(folder)) if folder else _synthetic(EVENT_SIZE)


def _order(number: int) -> dict[str, Any]:
    return {
        "id": f"o-{number:08d}",
        "customer": f"c-{number * 7919 % 1_000_000:06d}",
        "total": number % 500 + 0.25,
        "currency": ("EUR", "USD", "GBP")[number % 3],
        "lines": [{"sku": "A-100", "quantity": 1 + number % 4}, {"sku": "B-2", "quantity": 1}],
        "sent": 0,
    }


def _synthetic(size: int) -> Payloads:
    """Orders with enough lines and text to reach the size."""
    schema = copy.deepcopy(_ORDER_SCHEMA)
    schema["properties"]["lines"]["items"]["properties"]["about"] = {"type": "string", "maxLength": 200}
    values = []
    for number in range(20):
        value = _order(number)
        line = {"sku": "A-100", "quantity": 3, "about": "leave the parcel at the front door " * 3}
        value["lines"] = [line] * (size // len(_compact(line)))
        values.append(value)
    return Payloads(tuple(values), schema)


def _corpus(folder: Path) -> Payloads:
    """Return the valid payloads of the schema whose mean size is closest to EVENT_SIZE."""
    lines = [json.loads(line) for line in (folder / "payloads.ndjson").read_text().splitlines()]
    found = []
    for path in sorted((folder / "schemas").glob("*.json")):
        mine = [line["payload"] for line in lines if _is_under(line["key"], path.stem)]
        candidates = Payloads(tuple(mine), json.loads(path.read_text()))
        valid = Payloads(tuple(filter(candidates.is_valid, mine)), candidates.schema)
        if valid.values:
            found.append(valid)
    if not found:
        raise SystemExit(f"{folder}: no payload satisfies a schema of {folder / 'schemas'}")
    return min(found, key=lambda those: abs(those.size - EVENT_SIZE))


def _is_under(key: str, name: str) -> bool:
    return key == name or key.startswith(name + ".")


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
