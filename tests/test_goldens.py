"""Each `diagnostics/CODE*.yaml` has the diagnostics in the `.txt` file of the same name.

`ABE_ROUTER_REWRITE=1` rewrites the texts. Read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from abe_router.config.building.loader import Loader
from abe_router.config.reading.code import Code
from abe_router.diagnostic import render_all
from abe_router.errors import ConfigError

HERE = Path(__file__).parent / "diagnostics"
INDEX = HERE.parent.parent / "docs" / "errors.md"
PAIRS = sorted(HERE.glob("*.yaml"))
#: Faults that a file in a repository cannot have.
PREPARED = {"R001": Path.unlink, "R004": lambda path: path.chmod(0o666)}


@pytest.fixture
def golden_folder(tmp_path, monkeypatch):
    """Change to a copy of the golden files, and restore the import path."""
    shutil.copytree(HERE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("golden_handlers", None)


def rendered(path):
    if prepare := PREPARED.get(path.stem):
        prepare(path)
    try:
        found = Loader(path, env={}).load().warnings
    except ConfigError as error:
        found = error.diagnostics
    # What another library says may change with its version.
    return re.sub(r"\(in detail: .*\)", "(in detail: ...)", render_all(found)) + "\n"


@pytest.mark.usefixtures("golden_folder")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda path: path.stem)
def test_a_faulty_file_renders_as_its_golden_text(pair):
    golden = pair.with_suffix(".txt")
    text = rendered(Path(pair.name))
    if os.environ.get("ABE_ROUTER_REWRITE"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_golden_text(code):
    assert f"[{code}]" in (HERE / f"{code}.txt").read_text()


@pytest.mark.parametrize("code", Code)
def test_the_index_shows_the_golden_text_of_every_code(code):
    golden = (HERE / f"{code}.txt").read_text().rstrip("\n")
    index = INDEX.read_text()
    section = re.search(rf"^### {code}: .+?(?=^##|\Z)", index, re.MULTILINE | re.DOTALL)
    assert section, f"docs/errors.md has no section `### {code}: ...`"
    block = re.search(r"```text\n(.*?)\n```", section[0], re.DOTALL)
    assert block, f"the section of {code} has no block of text"
    if os.environ.get("ABE_ROUTER_REWRITE") and block[1] != golden:
        INDEX.write_text(index.replace(section[0], section[0].replace(block[1], golden)))
    else:
        assert block[1] == golden


def test_the_index_lists_exactly_the_codes_of_the_source():
    listed = re.findall(r"^### ([RW]\d{3}):", INDEX.read_text(), re.MULTILINE)
    assert listed == sorted(Code)
