"""Refusals and errors as pages, for browsers that asked for a page."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from abe_router.http.dashboard.login import login_path
from abe_router.http.dashboard.page import Pages
from abe_router.http.guard import Scope, request_headers
from abe_router.http.security import cookie_name, cookie_values

#: What is not a page answers with problem details, also to a browser.
_API = ("/v1/", "/metrics", "/healthz", "/livez", "/readyz", "/startupz", "/static/")
#: What to do about a status, where the problem itself has no hint.
_ADVICE = {
    403: "Ask for a token with this role, or log in with another one.",
    404: "It may have been removed, or the address is mistyped.",
    429: "Wait a moment, and try again.",
    500: "This is a bug of abe-router. The log of the server has the traceback.",
    503: "Nothing is lost: messages stay in the backend. The page works again once it answers.",
}


def wants_page(path: str, accept: str) -> bool:
    """Return whether the answer to a request is a page."""
    return not path.startswith(_API) and "text/html" in accept


def error_page(pages: Pages, scope: Scope, answer: Response) -> Response:
    """Return problem details as a page. Without a login it is the form that asks for one."""
    request = Request({**scope, "state": scope.get("state", {"caller": None})})
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    if not wants_page(path, request.headers.get("accept", "")):
        return answer
    is_get = scope["method"] == "GET"
    query = scope["query_string"].decode("latin-1")
    again = f"{path}?{query}" if query else path
    if answer.status_code == 401 and path != "/login":
        headers = request_headers(scope)
        has_ended = bool(cookie_values(headers, cookie_name(headers)))
        return RedirectResponse(root + login_path(again if is_get else "", has_ended=has_ended), 303)
    said = json.loads(bytes(answer.body))
    text = pages.rendered(
        request,
        "error.html",
        title=said["title"],
        problem=said,
        advice=said.get("hint") or _ADVICE.get(said["status"], ""),
        again=again if is_get and said["status"] in (429, 500, 503) else "",
    )
    kept = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
    return HTMLResponse(text, answer.status_code, headers=kept)
