"""A running server for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .serving import Serving, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """Yield a server for a memory backend, with a token of each role."""
    async with serving(tmp_path) as found:
        yield found
