"""docs/providers.md: its provider passes the suite, and the tests and settings it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from abe_router.backend import Features
from abe_router.conformance import BackendConformance

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
TEXT = PAGE.read_text()


def test_provider_of_the_page_passes_the_suite(tmp_path):
    follow(PAGE, tmp_path)


def test_checklist_names_only_tests_of_the_suite():
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named
    assert named <= set(dir(BackendConformance))


def test_every_setting_and_every_feature_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)", TEXT, re.MULTILINE))
    settings = {name for kind in BackendConformance.__mro__ for name in getattr(kind, "__annotations__", ())}
    assert rows == {*settings, "make_backend", "warm", "snapshot", "stop_server", *Features.__struct_fields__}
