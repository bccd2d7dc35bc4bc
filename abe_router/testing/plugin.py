"""The pytest plugin: the fixtures, and `pytest --abe-backend URL` for the conformance suite.

pytest loads it in every run where the package is installed. So each fixture imports its parts on demand, and
none needs a plugin for asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def abe_recording_backend() -> Any:
    """Return a RecordingBackend, a memory backend that records the published messages."""
    from abe_router.testing.recording import RecordingBackend

    return RecordingBackend()


@pytest.fixture
def abe_test_router(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that makes the TestRouter of a routes file.

    The path is relative to the folder of the test or, if the file does not exist there, to pytest's root.
    """
    from abe_router.testing.router import TestRouter

    def make(path: str | Path, **options: Any) -> TestRouter:
        beside = request.path.parent / path
        return TestRouter(beside if beside.exists() else request.config.rootpath / path, **options)

    return make


@pytest.fixture(scope="session")
def abe_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a RedisServer for the whole run; skip the tests that use it if none is installed."""
    from abe_router.testing.redis_server import RedisServer

    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def abe_redis_url(abe_redis_server: Any) -> str:
    """Return the URL of a temporary Redis server that is empty when the test begins."""
    abe_redis_server.empty()
    url: str = abe_redis_server.url
    return url


@pytest.fixture
def abe_redis_client(abe_redis_server: Any, abe_redis_url: str) -> Any:  # noqa: ARG001  it empties the server
    """Return a `redis.asyncio.Redis` for the server of `abe_redis_url`; it need not be closed."""
    return abe_redis_server.client()
