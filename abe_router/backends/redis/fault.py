"""What a Redis server refuses, as errors of this package."""

from __future__ import annotations

from abe_router.errors import BackendError, BackendUnavailable

#: Refusals that pass: the server starts, changes its role, is out of memory or disk, or busy.
_PASSING = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    }
)
_HINTS = {
    "NOAUTH": "; the server asks for a password and the URL has none",
    "WRONGPASS": "; look at the user name and password in the URL",
    "NOPERM": "; the ACL of this user lacks something this backend needs",
    "MOVED": "; Redis Cluster is not supported yet, give the URL of a plain server",
    "WRONGTYPE": "; a key of that name holds something else than a stream",
}


class ServerError(BackendError):
    """Raised when the server refuses a command; `code` is the first word of its answer."""

    def __init__(self, message: str, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class ServerNotReady(BackendUnavailable):
    """Raised when the server refuses a command for now."""


def server_error(reply: str) -> BackendError:
    """Turn an error reply into an exception.

    An unknown command is answered with its arguments, which may be payload, so these are cut off.
    """
    code, _, _ = reply.partition(" ")
    text = reply.partition(", with args beginning with")[0].partition(" script: ")[0]
    if code in _PASSING or "max number of clients" in text:
        return ServerNotReady(f"the Redis server is not ready: {text}")
    return ServerError(f"the Redis server refused: {text}{_HINTS.get(code, '')}", code)
