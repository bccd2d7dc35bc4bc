"""Adapts a provider that was written for Abstract Backend: `publish`, `consume` and nothing else.

Such a provider tells neither the key of a message nor whether it was handled, so much is out of reach: a
message is handed out at most once, a failed one is not tried again, and there are no dead letters. The key,
id and headers travel in one more member of the payload, `_abe_router`. What another program published
without it goes to the only route of its group and, where there are more, to none.
"""

from abe_router.backends.abstract.backend import AbstractBackend
from abe_router.backends.abstract.stream import MessageQueue, is_abstract

__all__ = ["AbstractBackend", "MessageQueue", "is_abstract"]
