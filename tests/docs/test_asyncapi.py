"""docs/asyncapi.md: its commands print what the page shows."""

from __future__ import annotations

from pathlib import Path

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "asyncapi.md"


def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    follow(PAGE, tmp_path)
