"""Logs browsers in and out: a token, or the code of the first link, becomes a cookie."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from abe_router.http.dashboard.page import Pages, read_form
from abe_router.http.guard import request_headers
from abe_router.http.security import SESSION_TIME, cookie_name
from abe_router.http.site import Site

#: Where a browser goes after it has logged in.
START = "/routes"
#: Longest form, in bytes. Its sender is not known yet.
MAX_FORM = 4_096


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages."""

    async def form(request: Request) -> Response:
        """Answer with a form. It changes nothing, so that a preview of the link does not use it up."""
        return await ask(request, request.query_params.get("code", ""))

    async def ask(request: Request, code: str = "", failed: str = "") -> Response:
        status = 401 if failed else 200
        return await pages.render(
            request, "login.html", title="Log in", status=status, code=code, failed=failed
        )

    async def log_in(request: Request) -> Response:
        session = site.security.log_in((await read_form(request, MAX_FORM)).get("token", "").strip())
        if session is None:
            return await ask(request, failed="the token is unknown, or the link was used before")
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

    async def start(request: Request) -> Response:
        return RedirectResponse(request.scope.get("root_path", "") + START, 303)

    return [
        Route("/", start),
        Route("/login", form),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]
