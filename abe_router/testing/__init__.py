"""Tools for your tests: a router in memory, a recording backend, a temporary Redis server, and fixtures.

The fixtures of `abe_router.testing.plugin` are available in every run of pytest where this package is
installed.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Call": "abe_router.testing.router",
    "RecordingBackend": "abe_router.testing.recording",
    "RedisServer": "abe_router.testing.redis_server",
    "TestRouter": "abe_router.testing.router",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on demand, because the pytest plugin of this package must cost nothing."""
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)
