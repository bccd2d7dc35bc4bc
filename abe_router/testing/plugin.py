"""The pytest plugin: `pytest --abe-backend URL` runs the conformance suite against a provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from abe_router.testing.fixtures import (
    abe_recording_backend,
    abe_redis_client,
    abe_redis_server,
    abe_redis_url,
    abe_test_router,
)

__all__ = [
    "abe_recording_backend",
    "abe_redis_client",
    "abe_redis_server",
    "abe_redis_url",
    "abe_test_router",
]

# With this, a failing assertion of the suite shows its values, like one in a test module.
pytest.register_assert_rewrite("abe_router.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; without them, the plugin does nothing."""
    group = parser.getgroup("abe-router")
    group.addoption(
        "--abe-backend",
        metavar="URL",
        help="run the conformance suite against the backend at this URL, which fills it with messages",
    )
    group.addoption(
        "--abe-lease",
        metavar="SECONDS",
        type=float,
        default=0.3,
        help="lease in tests that wait until a lease expires (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the suite if a URL is given and no tests are named."""
    if config.getoption("--abe-backend") and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(Path(__file__).parent.parent / "conformance" / "by_url.py")]
