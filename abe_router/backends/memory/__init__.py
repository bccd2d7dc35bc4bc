"""The memory backend: one process, nothing durable, everything else as the contract says.

It is the reference for the other providers. With an injected clock it simulates them.
"""

from abe_router.backends.memory.backend import MemoryBackend
from abe_router.backends.memory.subscription import ExclusiveMemorySubscription, MemorySubscription

__all__ = ["ExclusiveMemorySubscription", "MemoryBackend", "MemorySubscription"]
