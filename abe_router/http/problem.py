"""Errors as answers: problem details of RFC 9457, as `application/problem+json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from abe_router.errors import AbeRouterError, BackendUnavailable, KeyInvalid
from abe_router.operations.errors import (
    OperationError,
    RouteServed,
    UnknownDeadLetter,
    UnknownEdit,
    UnknownReplay,
    UnknownRoute,
)
from abe_router.text import mask_credentials

#: The page that describes the types of problems; each type is one of its headings.
TYPES = "https://abe-router.github.io/abe-router/http-api/#"
#: How long a client should wait before it repeats a request that an unreachable backend refused, in seconds.
RETRY_AFTER = 5


class Refusal(Exception):
    """Ends a request with a problem. Endpoints raise it, and the application answers it."""

    def __init__(self, status: int, kind: str, title: str, detail: str = "", /, **members: Any) -> None:
        self.status, self.kind, self.title, self.detail, self.members = status, kind, title, detail, members
        super().__init__(title)

    def response(self) -> Response:
        """Return the answer."""
        return problem(self.status, self.kind, self.title, self.detail, **self.members)

    def content(self) -> dict[str, Any]:
        """Return the problem as one of several results in an answer."""
        members = {name: value for name, value in self.members.items() if name != "headers"}
        return problem_content(self.status, self.kind, self.title, self.detail, members)


def invalid(detail: str) -> Refusal:
    """Return the refusal of a request that has not the form that the endpoint expects."""
    return Refusal(400, "invalid-request", "The request is invalid", detail)


def problem(
    status: int,
    kind: str,
    title: str,
    detail: str = "",
    /,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Return an error as an answer.

    `kind` is a heading of docs/http-api.md, `title` the same text for each problem of the kind, and
    `detail` says what is wrong with this request. Names of `members` consist of letters, digits and `_`.
    """
    return Response(
        msgspec.json.encode(problem_content(status, kind, title, detail, members)),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def problem_content(
    status: int, kind: str, title: str, detail: str, members: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a problem as RFC 9457 writes it."""
    said = {"detail": detail} if detail else {}
    return {"type": TYPES + kind, "title": title, "status": status, **said, **members}


def hint_of(error: Exception) -> str:
    """Return what a client can do about an error, in the words of a request; empty if nothing is known."""
    if isinstance(error, RouteServed):
        return "stop the workers first; `force` with a reason in `why` deletes under them"
    return getattr(error, "hint", "")


def problem_of(error: AbeRouterError) -> Response:
    """Return the answer for an error of the package that an endpoint raised."""
    text = mask_credentials(str(error))
    members: dict[str, Any] = {"hint": hint} if (hint := hint_of(error)) else {}
    match error:
        case BackendUnavailable():
            title = "The backend cannot be reached"
            retry = {"Retry-After": str(RETRY_AFTER)}
            return problem(503, "backend-unavailable", title, text, headers=retry, **members)
        case UnknownRoute() | UnknownDeadLetter() | UnknownReplay() | UnknownEdit():
            return problem(404, "not-found", "Not found", text, **members)
        case KeyInvalid():
            return problem(400, "invalid-request", "The request is invalid", text, **members)
        case OperationError():
            return problem(409, "refused", "The operation is refused", text, **members)
    return problem(422, "rejected", "The input is rejected", text, **members)
