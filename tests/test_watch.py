"""Signs that it is worth to look at the files."""

from __future__ import annotations

import asyncio

from abe_router.watch import Watch


async def test_a_busy_database_beside_the_file_hides_nothing(tmp_path):
    """What was edited before the watch began is found by looking, and the looking must not wait for quiet."""
    watch = Watch(lambda: {tmp_path / "routes.yaml"})

    async def write():
        while True:
            (tmp_path / ".abe-router.db-wal").write_text("busy")
            await asyncio.sleep(0.005)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(5):
        signs = watch.signs()
        assert [await anext(signs) for _ in range(3)] == [False] * 3
        (tmp_path / "routes.yaml").write_text("routes: {}")
        while not await anext(signs):
            pass
    writing.cancel()
    await asyncio.wait({writing})
    await signs.aclose()
