"""A browser, one a process because its start takes a second, and two servers to look at with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.http_server.serving import Serving, serving

from . import busy
from .browser import BROWSERS, SHELL, Browser
from .shop import shop as shop_server


@contextmanager
def _started(*programs: str) -> Iterator[Browser]:
    if shutil.which("chromedriver") is None:
        assert not os.environ.get("CI"), "Chromium is not installed: see .ci/install-chromium"
        pytest.skip("Chromium is not installed: see .ci/install-chromium")
    browser = Browser(*programs)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def _browser() -> Iterator[Browser]:
    with _started(SHELL, *BROWSERS) as browser:
        yield browser


@pytest.fixture
def browser_with_tabs() -> Iterator[Browser]:
    """Yield a browser in which a tab behind another one is hidden."""
    with _started(*BROWSERS) as browser:
        yield browser


@pytest.fixture
def browser(_browser: Browser) -> Browser:
    """Return the browser, with the window and the theme of a laptop."""
    _browser.reset()
    return _browser


@pytest.fixture
def browser_without_javascript(_browser: Browser) -> Browser:
    """Return the browser. It runs no scripts of pages."""
    _browser.reset(javascript=False)
    return _browser


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """Yield a server for a shop with edits, acts and messages; some files have a server of their own."""
    async with shop_server(tmp_path) as found:
        yield found


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Serving]:
    """Yield a server for a shop whose routes have been busy for an hour."""
    async with serving(tmp_path, busy.shop_file()) as found:
        await busy.fill(found, 60)
        yield found
