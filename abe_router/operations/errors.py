"""The reasons for which an operation is refused.

This module imports nothing heavy, so that the command line can name its errors at no cost.
"""

from __future__ import annotations

from abe_router.errors import AbeRouterError, BackendUnavailable


class OperationError(AbeRouterError):
    """Base of the reasons for which an operation is refused; `hint` says what to do instead, if known."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class UnknownRoute(OperationError):
    """Raised when neither the table nor the backend knows a route."""


class UnknownDeadLetter(OperationError):
    """Raised when a route has no dead letter with the given id."""


class RouteInFile(OperationError):
    """Raised when a route cannot be dropped because it is still in the routes file."""


class BackendNotShared(OperationError):
    """Raised when the backend lives in another process, as `memory://` does."""


class OutcomeUnknown(BackendUnavailable):
    """Raised when the backend fails while a batch of lines is published: any of them may have been accepted.

    `first` and `last` are the numbers of the first and the last line read for the batch, `count` is how many
    messages it has. For `window` seconds, publishing all of them again duplicates none; 0 is no such window.
    """

    def __init__(self, message: str, *, first: int, last: int, count: int, window: float) -> None:
        self.first, self.last, self.count, self.window = first, last, count, window
        super().__init__(message)
