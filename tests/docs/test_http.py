"""docs/http.md: its commands print what the page shows, and its program runs."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "http.md"


@pytest.mark.timeout(120)
def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    try:
        follow(PAGE, tmp_path)
    finally:
        for name in ("router.pid", "dashboard.pid"):
            with suppress(OSError):
                os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)
