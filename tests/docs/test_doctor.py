"""docs/doctor.md has every code, and shows what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

from abe_router.backend import HealthCheck

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


def test_page_has_exactly_the_codes_in_order() -> None:
    assert re.findall(r"^### (D\d{3}): ", PAGE.read_text(), re.MULTILINE) == sorted(HealthCheck)


def test_each_code_has_a_fix() -> None:
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        assert "*Fix:*" in section, section.partition("\n")[0]


def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
