"""Adapts a provider that is made for Abstract Backend: `publish`, `consume` and nothing else.

Such a provider reports neither the key of a message nor whether it was handled. A message is delivered at
most once, a failed one is not tried again, and there are no dead letters. The key, the id and the headers
travel in an extra member of the payload, `_abe_router`. A message that another program published has no such
member: it goes to the only route of its group, or to none if there are several.
"""

from abe_router.backends.abstract.backend import DEFAULT_GROUP, AbstractBackend
from abe_router.backends.abstract.stream import MessageQueue, is_abstract

__all__ = ["DEFAULT_GROUP", "AbstractBackend", "MessageQueue", "is_abstract"]
