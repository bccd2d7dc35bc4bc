"""The rules of CONTRIBUTING.md that no linter checks."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {
    path.relative_to(ROOT): path.read_text()
    for folder in ("abe_router", "chaos", "fuzz", "bench")
    for path in (ROOT / folder).rglob("*.py")
}
#: The most lines of a file.
LONGEST = 400
#: Words that say nothing; CONTRIBUTING.md lists them too.
NOT_USED = {"manager", "helper", "processor", "util", "common"}
#: The modules of distributions with another name.
MODULES = {"pyyaml": "yaml"}


def test_every_file_has_at_most_400_lines():
    lines = {path: len(text.splitlines()) for path, text in SOURCES.items()}
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}


def test_names_of_modules_classes_and_functions_use_no_banned_word():
    banned = NOT_USED | {f"{word}s" for word in NOT_USED}
    found = set()
    for path, text in SOURCES.items():
        for name in [path.stem, *re.findall(r"^ *(?:class|def|async def) (\w+)", text, re.MULTILINE)]:
            if banned.intersection(word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)):
                found.add(f"{path}: {name}")
    assert found == set()


def test_no_module_imports_under_type_checking():
    assert [path for path, text in SOURCES.items() if "if TYPE_CHECKING" in text] == []


def test_every_runtime_dependency_has_an_import_contract():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = {re.match(r"[\w-]+", text)[0] for text in project["project"]["dependencies"]}
    modules = {MODULES.get(name, name.replace("-", "_")) for name in required}
    contracts = project["tool"]["importlinter"]["contracts"]
    limited = {module for contract in contracts for module in contract.get("forbidden_modules", [])}
    assert modules - limited == {"msgspec"}


def test_architecture_lists_the_layers_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    shown = "\n".join(layers).replace(" | ", " · ")
    assert f"```\n{shown}\n```" in (ROOT / "ARCHITECTURE.md").read_text()


def test_every_linked_page_exists():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_contributing_lists_the_banned_words():
    (listed,) = re.findall(r"^These words .*: (.+)\.$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert set(listed.split(", ")) == NOT_USED


def test_contributing_names_only_targets_of_the_makefile():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", (ROOT / "CONTRIBUTING.md").read_text())) <= targets


#: Classes of one name and one idea, in two providers.
SHARED_NAMES = {"KeyValueStore", "Notifier", "Waiter"}


def test_a_class_name_has_one_meaning_in_the_package():
    defined = Counter(
        node.name
        for path in (ROOT / "abe_router").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in defined.items() if count > 1} == SHARED_NAMES
