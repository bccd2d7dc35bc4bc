"""The release workflow takes its notes from CHANGELOG.md, and refuses a tag that is not the version."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "release_notes.py"
CHANGELOG = """\
# Changes

## 0.3.0, unreleased

- Next.

## 0.2.0, 2026-11-26

### Added

- A thing.

## 0.1.0, 2026-01-02

- The first.
"""


@pytest.fixture
def release_notes():
    return runpy.run_path(str(SCRIPT))["release_notes"]


def test_the_notes_are_the_section_of_the_version(release_notes):
    assert release_notes("v0.2.0", "0.2.0", CHANGELOG) == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("tag", "version", "message"),
    [
        ("v0.2.0", "0.3.0", "the tag is v0.2.0, but the version in pyproject.toml is 0.3.0"),
        ("0.2.0", "0.2.0", "the tag is 0.2.0, but"),
        ("v0.3.0", "0.3.0", "the section `0.3.0, unreleased` has no date"),
        ("v0.4.0", "0.4.0", "has no section for 0.4.0"),
    ],
)
def test_a_release_that_is_not_ready_is_refused(release_notes, tag, version, message):
    with pytest.raises(ValueError, match=message):
        release_notes(tag, version, CHANGELOG)


def test_the_script_fails_for_a_wrong_tag():
    done = subprocess.run([sys.executable, SCRIPT, "v999"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the tag is v999")
