"""What a caller may do: tokens, the five roles, and the keys that a token is limited to."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from starlette.requests import Request

from abe_router.http.problem import Refusal
from abe_router.messages.pattern import covers
from abe_router.operations.audit import Author


class Role(StrEnum):
    """A role. Each endpoint needs one of them."""

    VIEWER = "viewer"
    READER = "reader"
    PUBLISHER = "publisher"
    OPERATOR = "operator"
    ADMIN = "admin"


#: The roles that a role includes. A publisher sees contracts alone, and an operator no payload.
INCLUDED = {
    Role.VIEWER: {Role.VIEWER},
    Role.READER: {Role.VIEWER, Role.READER},
    Role.PUBLISHER: {Role.PUBLISHER},
    Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
    Role.ADMIN: set(Role),
}


@dataclass(frozen=True)
class Caller:
    """The sender of a request: the name of its token, its roles, and the patterns of its keys."""

    name: str
    roles: frozenset[Role]
    keys: tuple[str, ...] = ("#",)

    def allows(self, role: str, key: str | None = None) -> bool:
        """Return whether the caller has a role for a key, or for every key of a pattern.

        Without `key`, whether it has the role for at least some keys.
        """
        if not any(role in INCLUDED[own] for own in self.roles):
            return False
        return key is None or any(covers(pattern, key) for pattern in self.keys)

    def allows_route(self, role: Role, route: str) -> bool:
        """Return whether the caller has a role for the key or pattern of a route's name."""
        return self.allows(role, route.partition("/")[0])

    def author(self, request: Request) -> Author:
        """Return the author of what the request does."""
        host = request.client.host if request.client else "unknown"
        return Author(self.name, f"http {host}")

    @property
    def is_limited(self) -> bool:
        """Whether there are keys that the caller may not use."""
        return "#" not in self.keys


@dataclass(frozen=True)
class Token:
    """A token, of which only the hash is known, with the rights of its callers.

    `digest` is the SHA-256 hash in hexadecimal.
    """

    digest: str
    caller: Caller


def caller_of(request: Request) -> Caller:
    """Return the caller of a request."""
    caller: Caller = request.state.caller
    return caller


def require(request: Request, role: Role, key: str | None = None) -> Caller:
    """Return the caller of a request; raise Refusal if it does not have the role for the key."""
    caller = caller_of(request)
    if caller.allows(role, key):
        return caller
    where = f" for `{key}`" if key is not None and caller.allows(role) else ""
    raise Refusal(
        403,
        "forbidden",
        "The token does not allow this",
        f"the request needs the role `{role}`{where}, and token `{caller.name}` does not have it",
        role=role.value,
    )


def digest(secret: str) -> str:
    """Return the hash of a token, as the routes file has it."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def find_token(tokens: Iterable[Token], secret: str) -> Token | None:
    """Return the token of a secret, or None. The time does not depend on which one it is."""
    wanted = digest(secret)
    found: Token | None = None
    for token in tokens:
        if hmac.compare_digest(token.digest, wanted):
            found = token
    return found
