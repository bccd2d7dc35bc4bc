"""`--once`: a worker that ends when every queue is empty."""

from __future__ import annotations

from pathlib import Path

from abe_router.backends.memory import MemoryBackend
from abe_router.config.building.loader import Loader
from abe_router.errors import BackendError
from abe_router.process.worker import Worker


async def test_queues_that_cannot_be_counted_are_logged_once_and_counted_again(
    tmp_path: Path, monkeypatch, caplog
):
    routes = tmp_path / "routes.yaml"
    routes.write_text("backend: memory://\nroutes: {a: {consumers: {g: os.path:basename}}}\n")
    count, status = 0, MemoryBackend.status

    async def refuse(backend: MemoryBackend):
        nonlocal count
        count += 1
        if count < 5:
            raise BackendError("WRONGTYPE of the list of keys")
        return await status(backend)

    monkeypatch.setattr(MemoryBackend, "status", refuse)
    monkeypatch.setattr("abe_router.process.worker.ONCE_EVERY", 0.001)
    loader = Loader(routes)
    assert await Worker(loader, loader.load(), watch=False, once=True).run() == 0
    assert caplog.text.count("cannot see whether every queue is empty, and keep trying: WRONGTYPE") == 1
