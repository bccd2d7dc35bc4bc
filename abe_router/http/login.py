"""Logs browsers in and out: a token, or the code of the first link, becomes a cookie."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from abe_router.http.guard import request_headers
from abe_router.http.problem import Refusal
from abe_router.http.security import SESSION_TIME, cookie_name
from abe_router.http.site import Site

#: Where a browser goes after it has logged in.
START = "/v1/status"
#: Longest form, in bytes.
MAX_FORM = 4_096

_PAGE = """<!doctype html>
<html lang="en">
<title>abe-router: log in</title>
<h1>abe-router</h1>
<form method="post" action="login">
{field}
<button>Log in</button>
</form>
"""
_ASK = '<label>Token <input type="password" name="token" autocomplete="off" required autofocus></label>'
_CODE = '<input type="hidden" name="token" value="{code}">'


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""

    async def form(request: Request) -> Response:
        """Answer with a form. It changes nothing, so that a preview of the link does not use it up."""
        code = request.query_params.get("code")
        field = _CODE.format(code=escape(code, quote=True)) if code else _ASK
        return HTMLResponse(_PAGE.format(field=field))

    async def log_in(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM:
                raise Refusal(413, "too-large", "The body is too large", f"the limit is {MAX_FORM:,} bytes")
        fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=10))
        session = site.security.log_in(fields.get("token", "").strip())
        if session is None:
            raise Refusal(
                401, "unauthorized", "A token is needed", "the token is unknown, or the link was used before"
            )
        headers = request_headers(request.scope)
        response = RedirectResponse(request.scope.get("root_path", "") + START, 303)
        response.set_cookie(
            cookie_name(headers),
            session,
            max_age=int(SESSION_TIME),
            path=request.scope.get("root_path", "") or "/",
            secure=headers.get("origin", ("",))[0].startswith("https://"),
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(request: Request) -> Response:
        headers = request_headers(request.scope)
        site.security.log_out(headers)
        response = RedirectResponse(request.scope.get("root_path", "") + "/login", 303)
        response.delete_cookie(cookie_name(headers), path=request.scope.get("root_path", "") or "/")
        return response

    return [
        Route("/login", form),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]
