"""The backend of a test in memory, which stands for every other one of this process while the test runs.

Code under test makes its backends itself, in tasks and threads of its own, so nothing can be passed to it. So
the state is that of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from abe_router.backend.backend import Backend
from abe_router.errors import BackendError

#: Makes a view of the backend of each running test, None while a test only loads its handlers.
_running: list[Callable[[], Backend] | None] = []


@contextmanager
def standing_for_all(lend: Callable[[], Backend] | None = None) -> Iterator[None]:
    """Let `substitute` return what `lend` does, and refuse to open real backends. Without it, only refuse."""
    _running.append(lend)
    try:
        yield
    finally:
        _running.remove(lend)


def substitute() -> Backend | None:
    """Return a view of the backend of the test that began last; None if no test runs."""
    return lend() if _running and (lend := _running[-1]) is not None else None


def refuse_in_test(url: str) -> None:
    """Raise BackendError if a test in memory runs: it must not reach a real backend."""
    if _running:
        raise BackendError(
            f"`{url}` is not opened, because a test in memory runs in this process: make the backend or the"
            " router inside the test, and it is the test's own"
        )
