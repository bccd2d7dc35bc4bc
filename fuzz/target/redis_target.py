"""A target that needs a Redis server."""

from __future__ import annotations

from pathlib import Path

from abe_router.testing import RedisServer
from fuzz.target.target import Target


class RedisTarget(Target):
    """Starts a server, `server`, for its cases."""

    def missing(self) -> str:
        """Return why it cannot run here."""
        return "" if RedisServer.installed() else "redis-server is not installed"

    def open(self, folder: Path) -> None:
        """Start the server."""
        super().open(folder)
        self.server = RedisServer(folder)
        self.server.start()

    def close(self) -> None:
        """End the server."""
        self.server.kill()
