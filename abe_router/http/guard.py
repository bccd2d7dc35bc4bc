"""The outermost layer of the application: limits, headers, and errors of every request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from abe_router.http.access import Caller
from abe_router.http.endpoint import is_longer
from abe_router.http.problem import Refusal, invalid, problem
from abe_router.http.security import Headers, Security, unauthorized

_log = logging.getLogger("abe_router.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
#: Returns a refusal as the client of a request wants it: as it is, or as a page.
Present = Callable[[Scope, Response], Response]

#: Longest body of a request in bytes: of a batch that is published, and of all others.
MAX_BATCH, MAX_BODY = 64 * 1024 * 1024, 1024 * 1024
#: Longest path and longest query of a URL, and longest headers, in bytes.
MAX_QUERY, MAX_HEADERS = 8_192, 16_384
#: How long a client may take to send a body, in seconds.
BODY_TIME = 30.0
#: Most bytes that are read of a refused body, and the time for that, in seconds.
MAX_DISCARDED, DISCARD_TIME = 4 * 1024 * 1024, 1.0
#: The name of the caller in the scope of a request.
CALLER = "abe_router.caller"
#: Paths that need no token.
PUBLIC = {"/livez", "/readyz", "/startupz", "/login"}
#: Files that all pages need, also the one that logs in.
PUBLIC_FOLDER = "/static/"
#: The headers of every answer. Pages have no inline scripts, and no page may frame them. With the policy
#: `no-referrer`, browsers would send `Origin: null` with a form.
ANSWER_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in ANSWER_HEADERS.items()]


class Guard:
    """Passes a request on after the checks of `security`, with its caller as `request.state.caller`.

    Without `security`, as on the listener of the probes, it only sets the limits. `present` shows a refusal.
    """

    def __init__(
        self, application: Application, security: Security | None, present: Present = lambda _, answer: answer
    ) -> None:
        self._application, self._security, self._present = application, security, present

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the application answers no {scope['type']} connections")
        path, headers = scope["path"].removeprefix(scope.get("root_path", "")), request_headers(scope)
        body = _Body(receive, MAX_BATCH if path.startswith("/v1/publish") else MAX_BODY, headers)
        answer = _Answer(send, body)
        try:
            caller = await self._check(scope, path, headers)
            body.check_length()
            scope[CALLER] = caller  # the listener has the same scope
            state = {**scope.get("state", {}), "caller": caller}
            await self._application({**scope, "state": state}, body.receive, answer.send)
        except Refusal as refused:
            await answer.finish(self._present(scope, refused.response()), scope, receive)
        except (ClientDisconnect, ConnectionError):
            pass  # an answer that is not complete ends with its connection
        except Exception:  # noqa: BLE001  an error of one request must not reach the server
            _log.exception("%s %s failed", scope["method"], scope["path"])
            failure = problem(500, "bug", "The server has a bug", "the log of the server has the details")
            await answer.finish(self._present(scope, failure), scope, receive)

    async def _check(self, scope: Scope, path: str, headers: Headers) -> Caller | None:
        if len(scope["query_string"]) > MAX_QUERY or len(path) > MAX_QUERY:
            raise Refusal(414, "invalid-request", "The request is invalid", "the URL is too long")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            raise Refusal(431, "invalid-request", "The request is invalid", "the headers are too long")
        parts = path.split("/")[1:]
        if (
            not path.startswith("/")
            or not path.isprintable()
            or "\\" in path
            or {".", ".."} & set(parts)
            or "" in parts[:-1]
        ):
            raise invalid("the path is not canonical")
        if self._security is None:
            return None
        query = scope["query_string"].decode("latin-1")
        self._security.check_host(headers)
        is_public = path in PUBLIC or path.startswith(PUBLIC_FOLDER)
        if not is_public:  # a probe is answered from memory
            await self._security.recall(headers)
        caller = self._security.find_caller(scope["method"], headers, query)
        if caller is None and not is_public:
            raise unauthorized("send `Authorization: Bearer TOKEN`, or log in with a browser at /login")
        return caller


class _Body:
    """The body of a request, with a limit of its size and of the time that it takes."""

    def __init__(self, receive: Receive, limit: int, headers: Headers) -> None:
        self._receive, self._limit, self._headers = receive, limit, headers
        self._complete, self._read = False, 0
        self._until = asyncio.get_running_loop().time() + BODY_TIME

    def check_length(self) -> None:
        """Raise Refusal if the client announces too long a body."""
        if is_longer(self._headers.get("content-length", ("",))[0], self._limit):
            raise self._too_large()

    async def receive(self) -> Message:
        """Return the next part; raise Refusal if the limit is exceeded, or the client is too slow."""
        if self._complete:
            return await self._receive()  # waits until the client has gone
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "too-slow", "The body took too long") from None
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._read > self._limit:
                raise self._too_large()
        return message

    async def discard(self) -> None:
        """Read the rest of a refused body, up to a limit, unless the client waits before it sends the body.

        Many clients look for an answer only after they have sent the whole body. The answer is lost if the
        connection ends before.
        """
        if "expect" in self._headers:
            return
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_TIME):
                while not self._complete and size < MAX_DISCARDED:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)

    def _too_large(self) -> Refusal:
        return Refusal(413, "too-large", "The body is too large", f"the limit is {self._limit:,} bytes")


class _Answer:
    """The answer to one request, with the headers that every answer has."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send, self._body = send, body
        self._started = False

    async def send(self, message: Message) -> None:
        """Send a part."""
        if message["type"] == "http.response.start":
            self._started = True
            if message["status"] >= 400:
                await self._body.discard()
            own = {name for name, _ in message["headers"]}
            added = [header for header in _RAW_HEADERS if header[0] not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)

    async def finish(self, response: Response, scope: Scope, receive: Receive) -> None:
        """Send a whole answer, if none has begun."""
        if self._started:
            return
        response.headers["Connection"] = "close"  # the rest of the body was not read
        await response(scope, receive, self.send)


def on_http_error(request: Request, error: Exception) -> Response:
    """Return the answer for an unknown path or a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        detail = f"{request.url.path} does not take {request.method}"
        return problem(405, "invalid-request", "The request is invalid", detail, headers=error.headers)
    if error.status_code == 404:
        return problem(404, "not-found", "Not found", "there is nothing at this path")
    return problem(error.status_code, "invalid-request", "The request is invalid", error.detail)


def request_headers(scope: Scope) -> Headers:
    """Return the values of each header of a request, by its name in lower case."""
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found
