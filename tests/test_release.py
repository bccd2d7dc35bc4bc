"""What a release is made of: its notes, from CHANGELOG.md, and the versions of its dependencies."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
SCRIPT = ROOT / ".ci" / "release_notes.py"
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


def pinned_versions():
    """Return the versions of each library in the constraints."""
    versions = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            versions.setdefault(canonicalize_name(pin.name), []).append(Version(str(pin.specifier)[2:]))
    return versions


def test_the_constraints_pin_every_dependency_within_its_range_and_name_no_host():
    text = CONSTRAINTS.read_text()
    assert "://" not in text
    assert "--" not in text
    pins = pinned_versions()
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*given["project"]["dependencies"], *given["build-system"]["requires"]]
    asked += [one for extra in given["project"]["optional-dependencies"].values() for one in extra]
    for requirement in map(Requirement, asked + given["dependency-groups"]["release"]):
        versions = pins.get(canonicalize_name(requirement.name))
        assert versions, requirement
        assert all(map(requirement.specifier.contains, versions)), requirement


def test_what_a_user_installs_has_an_upper_bound_for_every_library():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["http"]]
    for requirement in map(Requirement, asked + project["optional-dependencies"]["otel"]):
        below = [Version(one.version) for one in requirement.specifier if one.operator == "<"]
        above = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        assert len(below) == len(above) == 1, requirement
        # A library below 1.0 may change anything in its next minor version.
        tested = max(pinned_versions()[canonicalize_name(requirement.name)])
        assert below[0].major or below[0].minor == tested.minor + 1, requirement
