"""The errors of refused operations.

This module imports nothing heavy, so the command line can import it at no cost.
"""

from __future__ import annotations

from abe_router.errors import AbeRouterError, BackendUnavailable, PublishError


class OperationError(AbeRouterError):
    """Base of the errors of refused operations. `hint` says what to do instead, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class UnknownRoute(OperationError):
    """Raised when neither the table nor the backend knows a route."""


class UnknownDeadLetter(OperationError):
    """Raised when a route has no dead letter with the given id."""


class UnknownReplay(OperationError):
    """Raised when the backend has no replay of that number."""


class RouteInFile(OperationError):
    """Raised when a route cannot be dropped because it is still in the routes file."""


class UnknownEdit(OperationError):
    """Raised when an edit, or the files of one, are not kept in the history."""


class OperationRefused(OperationError):
    """Raised when an operation is refused because of its arguments, or of what the backend can do."""


class RouteServed(OperationRefused):
    """Raised when something is not deleted because living workers may run its route."""


class BackendNotShared(OperationError):
    """Raised when the backend lives in another process, as `memory://` does."""


class KeyForbidden(PublishError):
    """Raised when a publisher may not use the key of a message."""


class OutcomeUnknown(BackendUnavailable):
    """Raised when the backend fails while it publishes a batch. Any of its lines may have been accepted.

    `first` and `last` are the numbers of the first and the last line of the batch, and `count` is the number
    of its messages. Within `window` seconds, all of them can be published again without duplicates. A window
    of 0 means that this is not possible.
    """

    def __init__(self, message: str, *, first: int, last: int, count: int, window: float) -> None:
        self.first, self.last, self.count, self.window = first, last, count, window
        super().__init__(message)
