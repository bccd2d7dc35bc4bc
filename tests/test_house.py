"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "abe_router").rglob("*.py"))
#: A file of more lines is about more than one noun.
LONGEST = 400
#: Words with two meanings, or none.
NOT_USED = (
    "manager",
    "service",
    "engine",
    "helper",
    "processor",
    "util",
    "utils",
    "common",
    "task",
    "job",
    "nack",
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_at_most_400_lines(path):
    assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_of_modules_classes_and_functions_use_the_words_of_the_house(path):
    tree = ast.parse(path.read_text())
    defined = [
        n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    words = {w.lower() for name in [path.stem, *defined] for w in re.findall(r"[A-Z]?[a-z]+", name)}
    assert words.isdisjoint(NOT_USED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_hides_under_type_checking(path):
    assert "if TYPE_CHECKING" not in path.read_text()


def test_the_layers_in_the_architecture_are_those_that_are_held():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    shown = "\n".join(layers).replace(" | ", " · ")
    assert f"```\n{shown}\n```" in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_page_that_a_page_links_to_is_there():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
