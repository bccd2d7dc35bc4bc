"""docs/promise.md: its fault commands run unchanged on SQLite and on Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from abe_router.testing import RedisServer

from .transcript import follow, shell_variables

PAGE = Path(__file__).parents[2] / "docs" / "promise.md"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder for the commands, and end their processes if one of them failed."""
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    for file in folder.glob("*.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("backend", ["sqlite", pytest.param("redis", marks=pytest.mark.long)])
def test_faults_of_the_page_lose_no_message(
    folder: Path, redis_program: str, tmp_path: Path, backend: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "redis-server").symlink_to(redis_program)
    with ExitStack() as stack:
        url = "sqlite:///break.db"
        if backend == "redis":
            (tmp_path / "redis").mkdir()
            url = stack.enter_context(RedisServer(tmp_path / "redis", durable=True)).url
        path = f"{shell_variables()['PATH']}{os.pathsep}{programs}"
        follow(PAGE, folder, ABE_ROUTER_BACKEND=url, PATH=path)
    handled = [int(line) for line in (folder / "handled.txt").read_text().split()]
    assert sorted(set(handled)) == list(range(1, 3001))
