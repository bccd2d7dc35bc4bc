"""Answers that no Redis server gives: the server is something else, or a proxy damages what it sends.

The protocol checks that an answer is well-formed, not that it is one to the command. Code that takes an
answer apart then fails with a TypeError or the like, which is neither a bug nor a mistake of the caller.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from abe_router.errors import BackendUnavailable

_log = logging.getLogger(__name__)

C = TypeVar("C")
#: What taking an answer apart raises if it has another form.
UNREADABLE = (TypeError, ValueError, LookupError, AttributeError)


def unreadable(error: Exception) -> BackendUnavailable:
    """Return the error of an answer that could not be taken apart; log at debug level where that was."""
    _log.debug("an answer of Redis cannot be read", exc_info=error)
    return BackendUnavailable(
        f"an answer of the Redis server cannot be read: {type(error).__name__}: {error}"
    )


def refuses_unreadable(cls: type[C]) -> type[C]:
    """Make the public coroutine methods of a class raise BackendUnavailable for an unreadable answer.

    Its `_node` then connects anew, because later answers may belong to other commands than it seems.
    `peek` is left out: it raises ValueError for a cursor of the caller's that is none.
    """
    for name, method in list(vars(cls).items()):
        if inspect.iscoroutinefunction(method) and not name.startswith("_") and name != "peek":
            setattr(cls, name, _refusing(method))
    return cls


def _refusing(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def refusing(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return await method(self, *args, **options)
        except UNREADABLE as error:
            if self._node is not None:
                self._node.connection.reset("an answer cannot be read")
            raise unreadable(error) from None

    return refusing
