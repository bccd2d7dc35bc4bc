"""docs/guide.md works word for word on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from .transcript import follow

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "backend",
    ["sqlite", *(pytest.param(backend, marks=pytest.mark.long) for backend in ("memory", "redis"))],
)
def test_steps_of_the_guide_work(
    backend: str, redis_program: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/queue.db",
        "redis": lambda: request.getfixturevalue("abe_redis_url"),
    }[backend]()
    follow(GUIDE, tmp_path, one_process=backend == "memory", QUEUE_BACKEND=url)
