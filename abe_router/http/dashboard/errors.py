"""Refusals and errors as pages, for browsers that asked for a page."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from abe_router.http.dashboard.page import Pages
from abe_router.http.guard import Scope

#: What is not a page answers with problem details, whoever asks.
_API = ("/v1/", "/metrics", "/healthz", "/livez", "/readyz", "/startupz", "/static/")


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
    if answer.status_code == 401 and path != "/login":
        return RedirectResponse(f"{root}/login", 303)
    said = json.loads(bytes(answer.body))
    text = pages.rendered(
        request,
        "error.html",
        title=said["title"],
        problem=said,
    )
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
    return HTMLResponse(text, answer.status_code, headers=headers)
