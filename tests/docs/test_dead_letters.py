"""docs/dead-letters.md: its steps work as written."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "dead-letters.md"


@pytest.mark.timeout(120)
def test_steps_of_the_page_work(tmp_path: Path) -> None:
    try:
        follow(PAGE, tmp_path)
    except AssertionError:
        with suppress(OSError, ValueError):
            os.kill(int((tmp_path / "serve.pid").read_text()), signal.SIGKILL)
        raise
