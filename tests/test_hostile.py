"""`check --no-import` of any file ends within 10 s of processor time and 300 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from abe_router.config.building.loader import Loader
from abe_router.config.reading.faults import MAX_FAULTS, MAX_TEXT
from abe_router.errors import ConfigError, SchemaInvalid
from abe_router.messages.message import decode
from abe_router.schema import SchemaFolder
from tests.hostile.corpus import ladder, nested_unevaluated
from tests.hostile.runner import MAX_BYTES, MAX_SECONDS

ROOT = Path(__file__).parents[1]
#: Of those that took more than the bounds before there were any, one for each bound. `ABE_ROUTER_LONGER=1`
#: runs the whole corpus.
CASES = (
    "scalar-backend-colons",
    "scalar-when-pattern",
    "patterns-of-400-stars",
    "unknown-emits-1000",
    "large-variable",
    "whens-with-faults",
    "unevaluated-ladder",
    "references-to-nothing-1500",
    "large-patterns",
)


@pytest.mark.heavy(5)
@pytest.mark.timeout(600)
def test_check_of_hostile_files_is_bounded_in_time_and_memory():
    names = () if os.environ.get("ABE_ROUTER_LONGER") else CASES
    command = [sys.executable, "-m", "tests.hostile.runner", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    found = {case["name"]: case for case in map(json.loads, done.stdout.splitlines())}
    assert set(names) <= found.keys()
    assert {n: c for n, c in found.items() if c["code"] not in (0, 78)} == {}
    assert {n: c for n, c in found.items() if c["seconds"] > MAX_SECONDS or c["memory"] > MAX_BYTES} == {}
    assert {n: c for n, c in found.items() if c["output"] > 2 * MAX_FAULTS * MAX_TEXT} == {}


def test_number_and_length_of_faults_are_bounded(tmp_path):
    text = "backend: memory://\nroutes: {}\n" + "".join(f"{'x' * 900}{n}: 1\n" for n in range(180))
    path = tmp_path / "routes.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Loader(path, env={}).load()
    assert sum(fault.severity == "error" for fault in caught.value.diagnostics) == 180
    assert max(len(fault.message) for fault in caught.value.diagnostics) <= MAX_TEXT
    path.write_text("backend: memory://\nroutes: {}\n" + "".join(f"x{n}: 1\n" for n in range(1000)))
    with pytest.raises(ConfigError) as caught:
        Loader(path, env={}).load()
    assert sum(fault.severity == "error" for fault in caught.value.diagnostics) == MAX_FAULTS + 1
    assert caught.value.diagnostics[-1].message == f"more than {MAX_FAULTS} errors; the others are not shown"


@pytest.mark.parametrize(
    "document",
    [
        ladder("unevaluatedProperties", 6, 6),
        ladder("unevaluatedItems", 2, 20, "anyOf"),
        ladder("", 10, 60),
        {"patternProperties": {f"(a{{900}}){{10}}{n}": {} for n in range(200)}},
        {"allOf": [{"pattern": rf"\p{{L}}{{50}}{n}"} for n in range(1000)]},
    ],
    ids=["properties", "items", "no-unevaluated", "pattern-names", "unicode"],
)
def test_schema_that_multiplies_is_refused_before_it_is_compiled(tmp_path, document):
    with pytest.raises(SchemaInvalid, match=r"too many subschemas|too much memory|not a regular expression"):
        SchemaFolder(tmp_path).inline(document, "s")


@pytest.mark.parametrize(
    "document",
    [
        nested_unevaluated(30),
        ladder("unevaluatedProperties", 3, 6),
        ladder("", 4, 6),
        {"$ref": "#", "unevaluatedProperties": False},
        {"allOf": [{"pattern": f"^[A-Z]{{3}}[0-9]{{1,10}}-{n}$"} for n in range(300)]},
        {"properties": {f"p{n}": {"pattern": r"^[\p{L} '-]{1,40}$"} for n in range(300)}},
    ],
)
def test_schema_that_people_write_is_compiled(tmp_path, document):
    assert SchemaFolder(tmp_path).inline(document, "s").is_valid(7)


def test_payload_with_an_open_string_is_refused():
    with pytest.raises(Exception, match="payload is not JSON"):
        decode(b"[" * 200 + b'"' + b'\\"' * 1000)
