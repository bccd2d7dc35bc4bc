"""docs/faults.md: each row names a test, and each named test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from chaos.fault import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text("utf-8")
ROWS = [
    line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| inv"))
]


def names_of_tests() -> set[str]:
    """Return the names of all tests, including the conformance suite."""
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("abe_router/conformance/*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))))
    return {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_named_on_the_page_exists() -> None:
    assert set(re.findall(r"`(test_\w+)`", PAGE)) - names_of_tests() == set()


def test_page_names_exactly_the_faults_of_the_chaos_harness() -> None:
    assert set(re.findall(r"`chaos ([\w-]+)`", PAGE)) == {fault.name for fault in FAULTS}


def test_every_row_names_a_test_or_gives_a_reason() -> None:
    for row in ROWS:
        shown = row.strip(" |").rpartition(" | ")[2]
        assert re.search(r"`(test_\w+|chaos [\w-]+)`|^Does not apply|^Not tested|threat|shown by", shown), row
