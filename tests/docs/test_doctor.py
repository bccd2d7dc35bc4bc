"""docs/doctor.md: it has every code of ours and no other, and shows what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

from abe_router.backend import HealthCheck

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"


def test_the_page_has_every_code_in_order_and_no_other() -> None:
    assert re.findall(r"^### (D\d{3}): ", PAGE.read_text(), re.MULTILINE) == sorted(HealthCheck)


def test_each_code_is_told_with_how_to_mend_it() -> None:
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        assert "*Mend it:*" in section, section.partition("\n")[0]


def test_its_commands_print_what_it_says(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
