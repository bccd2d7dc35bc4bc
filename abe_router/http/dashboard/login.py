"""Logs browsers in and out: a token, or the code of the first link, becomes a cookie."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from abe_router.http.access import caller_of
from abe_router.http.dashboard.page import NAVIGATION, Pages, is_local, read_form
from abe_router.http.guard import request_headers
from abe_router.http.security import cookie_name, is_secure
from abe_router.http.sessions import SESSION_TIME
from abe_router.http.site import Site

#: Where a browser goes after it has logged in, if it was not on its way to another page.
START = "/"
#: Longest form, in bytes. Its sender is not known yet.
MAX_FORM = 16_384
REFUSED = "the token is unknown, or the link was used before"


def login_path(back: str, *, has_ended: bool) -> str:
    """Return the path of the form that logs in, and then goes back to a page.

    `has_ended` says that the session of the browser has ended.
    """
    query = {name: value for name, value in (("back", back), ("ended", "1" * has_ended)) if value}
    return f"/login?{urlencode(query)}" if query else "/login"


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages."""

    async def form(request: Request) -> Response:
        """Answer with a form. It changes nothing, so that a preview of the link does not use it up."""
        query = request.query_params
        ended = query.get("ended") == "1"
        return await ask(request, query.get("back", ""), code=query.get("code", ""), ended=ended)

    async def ask(
        request: Request, back: str, *, code: str = "", failed: str = "", ended: bool = False
    ) -> Response:
        return await pages.render(
            request,
            "login.html",
            title="Log in",
            status=401 if failed else 200,
            back=back if is_local(back) else "",
            code=code,
            failed=failed,
            ended=ended,
        )

    async def log_in(request: Request) -> Response:
        form = await read_form(request, MAX_FORM)
        back = form.get("back", "")
        session = await site.security.log_in(form.get("token", "").strip())
        if session is None:
            return await ask(request, back, failed=REFUSED)
        headers = request_headers(request.scope)
        response = RedirectResponse(
            request.scope.get("root_path", "") + (back if is_local(back) else START), 303
        )
        response.set_cookie(
            cookie_name(headers),
            session,
            max_age=int(SESSION_TIME),
            path=request.scope.get("root_path", "") or "/",
            secure=is_secure(request.scope["scheme"], headers),
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(request: Request) -> Response:
        headers = request_headers(request.scope)
        await site.security.log_out(headers)
        response = RedirectResponse(request.scope.get("root_path", "") + "/login", 303)
        response.delete_cookie(cookie_name(headers), path=request.scope.get("root_path", "") or "/")
        return response

    async def start(request: Request) -> Response:
        """Go to the first page that the caller may see."""
        caller = caller_of(request)
        first = (entry.path for entry in NAVIGATION if caller.allows(entry.role))
        return RedirectResponse(request.scope.get("root_path", "") + next(first, "/permissions"), 303)

    return [
        Route("/", start),
        Route("/login", form),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]
