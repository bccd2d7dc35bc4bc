"""The memory backend: one process, nothing durable, everything else as the contract says.

It is the reference of what the other providers do, and with an injected clock the simulator of it.
"""

from abe_router.backends.memory.backend import MemoryBackend
from abe_router.backends.memory.subscription import MemorySubscription

__all__ = ["MemoryBackend", "MemorySubscription"]
