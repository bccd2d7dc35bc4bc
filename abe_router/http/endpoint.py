"""One endpoint of the API: its route and its description, declared once.

The OpenAPI document is made from the endpoints that the application routes to, so it lists all of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import Violation
from abe_router.http.access import Role, require
from abe_router.http.problem import Refusal, invalid

#: Largest number that counts or names something, and longest text of any other number, in characters.
LARGEST, MAX_NUMBER = 10**9, 40
_REAL = re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?")

#: Answers a request.
Run = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an endpoint. `type` is its type in Python."""

    name: str
    description: str
    where: Literal["path", "query", "header"] = "query"
    type: Any = str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A value of one of several types; with `many`, a list of such values."""

    types: tuple[Any, ...]
    many: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """The body of a request or an answer. `types` has the type of its value for each media type.

    A type is one that msgspec can encode, or AnyOf. `str` stands for text.
    """

    description: str
    types: Mapping[str, Any] = field(default_factory=dict)


def json_content(kind: Any, description: str) -> Content:
    """Return a body of JSON."""
    return Content(description, {"application/json": kind})


class Problem(msgspec.Struct, frozen=True):
    """Why a request, a line or an event was refused, as RFC 9457 describes it.

    `type` is the address of a page about this kind of problem. `errors` are the violations of a schema.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    errors: tuple[Violation, ...] = ()


class Endpoint(Route):
    """A route of the API. `run` answers the requests of callers that have `role` for at least some keys.

    Without a role, every caller that has a token may send the request. `run` checks the keys. `summary` and
    `details` describe it. `answers` has its successful answers by status, and `problems` says for which
    reasons it answers with another status. 401 and 403 are answers of every endpoint.
    """

    def __init__(
        self,
        method: str,
        path: str,
        run: Run,
        role: Role | None,
        summary: str,
        *,
        details: str = "",
        parameters: Sequence[Parameter] = (),
        body: Content | None = None,
        answers: Mapping[int, Content],
        problems: Mapping[int, str] | None = None,
    ) -> None:
        async def checked(request: Request) -> Response:
            if role is not None:
                require(request, role)
            return await run(request)

        super().__init__(path, checked, methods=[method], name=run.__name__)
        self.method, self.role, self.summary, self.details = method, role, summary, details
        self.parameters, self.body = tuple(parameters), body
        self.answers, self.problems = answers, problems or {}


def whole(text: str, *, most: int = LARGEST) -> int | None:
    """Return the whole number from 1 to `most` that a text of a client is, None if it is none.

    A text that is too long is not converted: that takes long, and Python refuses thousands of digits.
    """
    if len(text) > len(str(most)) or not text.isascii() or not text.isdecimal():
        return None
    return found if 1 <= (found := int(text)) <= most else None


def is_longer(declared: str, limit: int) -> bool:
    """Return whether a `Content-Length` is more than `limit` bytes, or no length at all."""
    digits = declared.lstrip("0")
    return digits != "" and whole(digits, most=limit) is None


def read_whole(text: str | None, name: str, default: int, *, most: int = LARGEST) -> int:
    """Return the whole number of a parameter, or `default` without one.

    Raise Refusal if it is not between 1 and `most`.
    """
    if not text:
        return default
    if (found := whole(text, most=most)) is None:
        raise invalid(f"`{name}` is a whole number between 1 and {most:,}")
    return found


def read_real(text: str | None, name: str, default: float) -> float:
    """Return the number of a parameter, or `default` without one; raise Refusal if it is not a number."""
    if text is None:
        return default
    if len(text) > MAX_NUMBER or _REAL.fullmatch(text) is None:
        raise invalid(f"`{name}` is not a number")
    return float(text)


def read_flag(text: str | None, name: str) -> bool:
    """Return whether a parameter is `true`, False without one.

    Raise Refusal if it is neither `true` nor `false`.
    """
    if text not in (None, "true", "false"):
        raise invalid(f"`{name}` is `true` or `false`")
    return text == "true"


def path_number(request: Request) -> int:
    """Return the number in the path of a request; raise Refusal if nothing can have it."""
    if (found := whole(request.path_params["number"])) is None:
        raise Refusal(404, "not-found", "Not found", "there is nothing at this path")
    return found
