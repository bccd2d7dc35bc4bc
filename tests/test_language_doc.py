"""`docs/language.md` shows the options of the code.

`ABE_ROUTER_REWRITE=1` rewrites the tables of options.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from abe_router.config.building.loader import Loader
from abe_router.config.language import http_model, model, synonyms, tests_model
from abe_router.config.language.check import expand, option_faults, type_of
from abe_router.config.language.editor import json_schema
from abe_router.config.language.forms import Model

ROOT = Path(__file__).parent.parent
DOC = ROOT / "docs" / "language.md"
SHIPPED = ROOT / "abe_router" / "routes.schema.json"
BLOCKS = re.findall(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
TABLES = re.findall(r"<!-- options: (\w+) -->\n(.*?)<!-- end -->", DOC.read_text(), re.DOTALL)


def options(name):
    """Return the table of a model's options from the generated JSON Schema."""
    schema = json_schema()
    part = schema if name == "File" else schema["$defs"][name]
    if name == "Consumer":  # its own options, without those of `defaults`
        shared = schema["$defs"]["Options"]["properties"]
        own = part["anyOf"][1]["properties"].items()
        part = {"properties": {option: details for option, details in own if option not in shared}}
    rows = ["", "| option | default | meaning |", "|---|---|---|"]
    for option, details in part["properties"].items():
        default = (
            f"`{json.dumps(details['default']).strip(chr(34))}`" if details.get("default", "") != "" else ""
        )
        rows.append(f"| `{option}` | {default} | {details.get('description', '')} |")
    return "\n".join([*rows, "", ""])


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_file_of_the_page_loads_without_a_fault(block, tmp_path):
    (tmp_path / "schemas").mkdir()
    for name in re.findall(r"schema: ([\w.]+\.json)", block):
        (tmp_path / "schemas" / name).write_text("{}")
    path = tmp_path / "routes.yaml"
    path.write_text(block)
    table = Loader(path, import_handlers=False, env={}).load()
    assert table.routes
    assert table.warnings == ()


@pytest.mark.parametrize(("name", "table"), TABLES, ids=[name for name, _ in TABLES])
def test_the_tables_list_every_option(name, table):
    wanted = options(name)
    if os.environ.get("ABE_ROUTER_REWRITE") and table != wanted:
        text = DOC.read_text()
        mark = f"<!-- options: {name} -->\n"
        DOC.write_text(text.replace(f"{mark}{table}<!-- end -->", f"{mark}{wanted}<!-- end -->"))
        table = wanted
    assert table == wanted


def test_every_model_of_the_language_has_its_table():
    assert {name for name, _ in TABLES} == {
        name.removesuffix("Model")
        for part in (model, http_model, tests_model)
        for name, kind in vars(part).items()
        if isinstance(kind, type) and issubclass(kind, Model) and kind.__struct_fields__
    }


def test_shipped_json_schema_matches_the_generated_one():
    if os.environ.get("ABE_ROUTER_REWRITE"):
        SHIPPED.write_text(json.dumps(json_schema(), indent=2) + "\n")
    assert json.loads(SHIPPED.read_text()) == json_schema()


def test_every_option_has_a_description():
    schema = json_schema()
    parts = [part for name, part in schema["$defs"].items() if name != "Filter"]  # a JSON Schema
    for part in (schema, *parts):
        for option, details in part.get("properties", {}).items():
            assert details.get("description"), option


@pytest.mark.parametrize("meant", synonyms.MEANT)
def test_the_example_of_a_synonym_fits_its_place(meant):
    place, example = re.fullmatch(r"(.*): `(.*)`", meant).groups()
    homes = {
        "of the file": lambda options: {"routes": {}} | options,
        "of a routing key": lambda options: {"routes": {"a.b": options}},
        "a consumer": lambda options: {"routes": {"a.b": {"consumers": {"g": {"handler": "a:b"} | options}}}},
        "below `routes`": lambda routes: {"routes": routes},
        "below `consumers`": lambda groups: {"routes": {"a.b": {"consumers": groups}}},
    }
    (home,) = (home for name, home in homes.items() if name in place)
    file = expand(home(yaml.safe_load(example)), type_of(model.FileModel))
    assert not list(option_faults(file, type_of(model.FileModel)))


def test_no_synonym_is_an_option():
    known = re.findall(r"^\| `(\w+)` \|", "".join(table for _, table in TABLES), re.MULTILINE)
    assert not [name for name in known if synonyms.hint_of_synonym(name) and name != "key"]
