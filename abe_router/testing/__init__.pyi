# The public names, for type checkers; at run time they are imported on demand.

from abe_router.testing.recording import RecordingBackend
from abe_router.testing.redis_server import RedisServer
from abe_router.testing.router import Call, TestRouter

__all__ = ["Call", "RecordingBackend", "RedisServer", "TestRouter"]
