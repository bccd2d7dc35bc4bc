"""A browser for the tests of this folder: one a process, because its start takes a second."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from .browser import Browser


@pytest.fixture(scope="session")
def _browser() -> Iterator[Browser]:
    if shutil.which("chromedriver") is None:
        assert not os.environ.get("CI"), "Chromium is not installed: see .ci/install-chromium"
        pytest.skip("Chromium is not installed: see .ci/install-chromium")
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(_browser: Browser) -> Browser:
    """Return the browser, with the window and the theme of a laptop."""
    _browser.reset()
    return _browser


@pytest.fixture
def browser_without_javascript(_browser: Browser) -> Iterator[Browser]:
    """Yield a browser that runs no scripts."""
    browser = Browser(javascript=False)
    yield browser
    browser.close()
