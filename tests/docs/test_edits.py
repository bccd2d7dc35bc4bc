"""docs/edits.md: its commands print what the page shows."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "edits.md"


@pytest.mark.timeout(240)
def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    try:
        follow(PAGE, tmp_path)
    finally:
        with suppress(OSError):
            os.kill(int((tmp_path / "router.pid").read_text()), signal.SIGKILL)
