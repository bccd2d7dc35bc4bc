"""What the pages share: the templates, the routes of pages, forms, notices and static files.

A page is declared by `PageRoute`, rendered by `Pages.render`, and lies at `/NAME`. A form posts to a page or
to `/NAME/ACTION`; its answer is `Pages.redirect`, with a notice that says what came of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Caller, Role, require
from abe_router.http.dashboard import formats
from abe_router.http.endpoint import Run, read_whole
from abe_router.http.guard import request_headers
from abe_router.http.problem import Refusal, invalid
from abe_router.http.sampler import Reading
from abe_router.http.security import cookie_values, is_secure
from abe_router.http.site import Site
from abe_router.text import mask_credentials, redact_url

T = TypeVar("T")

#: Longest form, in bytes, and most fields of it.
MAX_FORM, MAX_FIELDS = 1024 * 1024, 1_000
#: Most notices that are kept for the next page of their readers.
MOST_NOTICES = 1_000
#: How long a browser keeps a static file, in seconds. Its name changes with its content.
KEEP_STATIC = 365 * 24 * 3600
THEMES = ("light", "dark")
THEME_COOKIE = "abe-router-theme"

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class NavEntry:
    """A link to a page that all pages show. A caller needs the role to see the page."""

    path: str
    label: str
    role: Role
    #: The key that follows `g`, and goes to the page.
    key: str


NAVIGATION = (
    NavEntry("/routes", "Routes", Role.VIEWER, "r"),
    NavEntry("/dead", "Dead letters", Role.VIEWER, "d"),
    NavEntry("/edits", "Edits", Role.VIEWER, "e"),
    NavEntry("/workers", "Workers", Role.VIEWER, "w"),
    NavEntry("/tail", "Tail", Role.VIEWER, "t"),
    NavEntry("/publish", "Publish", Role.PUBLISHER, "p"),
    NavEntry("/graph", "Graph", Role.VIEWER, "m"),
    NavEntry("/messages", "Messages", Role.VIEWER, "s"),
    NavEntry("/audit", "Audit", Role.OPERATOR, "a"),
)


@dataclass(frozen=True)
class Notice:
    """What came of an action, for the next page. `level` is `ok`, `warn` or `bad`."""

    text: str
    level: str = "ok"


class PageRoute(Route):
    """A page, or the target of a form, for callers with `role`; without one, for all that have logged in."""

    def __init__(self, path: str, run: Run, role: Role | None, *, method: str = "GET") -> None:
        async def checked(request: Request) -> Response:
            if role is not None:
                require(request, role)
            return await run(request)

        super().__init__(path, checked, methods=[method], name=f"page {method} {path}")


class Pages:
    """Renders the pages of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._notices: dict[str, Notice] = {}
        self._environment = _environment()
        self._static = {name: _static_file(name) for name in ("dashboard.css", "dashboard.js", "icon.svg")}

    async def render(
        self,
        request: Request,
        template: str,
        *,
        title: str,
        status: int = 200,
        make: Callable[[], Mapping[str, Any]] = dict,
        **values: Any,
    ) -> Response:
        """Return a page made by a template; it extends `base.html`. `make` makes more values in the thread.

        Templates know `values`, and: `title`, `caller` (None before the login), `url(path, **query)`,
        `path` of the request, `here` with its query, `query`, `notice`, `theme`, `allows(role, key)`,
        `backend`, `revision`.
        """

        def made() -> str:
            return self._rendered(request, template, {"title": title, **values, **make()})

        return HTMLResponse(await asyncio.to_thread(made), status)

    def rendered(self, request: Request, template: str, *, title: str, **values: Any) -> str:
        """Return the text of a page."""
        return self._rendered(request, template, {"title": title, **values})

    def redirect(self, request: Request, path: str, notice: Notice | None = None, **query: str) -> Response:
        """Return the answer to a form: go to a page, which shows the notice."""
        if notice is not None:
            query["notice"] = name = secrets.token_urlsafe(9)
            while len(self._notices) >= MOST_NOTICES:
                del self._notices[next(iter(self._notices))]
            self._notices[name] = notice
        return RedirectResponse(_url(request, path, query), 303)

    def static_routes(self) -> list[Route]:
        """Return the routes of the static files, which need no login, and of the theme."""

        async def static(request: Request) -> Response:
            for name, (hashed, content) in self._static.items():
                if request.path_params["name"] == hashed:
                    headers = {"Cache-Control": f"public, max-age={KEEP_STATIC}, immutable"}
                    return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)
            raise Refusal(404, "not-found", "Not found", "there is no such file")

        async def set_theme(request: Request) -> Response:
            form = await read_form(request)
            back = form.get("back", "/")
            if not is_local(back):
                raise invalid("`back` is a path")
            response = RedirectResponse(request.scope.get("root_path", "") + back, 303)
            theme = form.get("theme", "")
            path = request.scope.get("root_path", "") or "/"
            if theme in THEMES:
                response.set_cookie(
                    THEME_COOKIE,
                    theme,
                    max_age=KEEP_STATIC,
                    path=path,
                    secure=is_secure(request.scope["scheme"], request_headers(request.scope)),
                    samesite="strict",
                    httponly=True,
                )
            else:
                response.delete_cookie(THEME_COOKIE, path=path)
            return response

        return [Route("/static/{name}", static), PageRoute("/theme", set_theme, None, method="POST")]

    def _rendered(self, request: Request, template: str, values: Mapping[str, Any]) -> str:
        caller: Caller | None = getattr(request.state, "caller", None)
        table = self._site.source.table

        def allows(role: str, key: str | None = None) -> bool:
            return caller is not None and caller.allows(role, key)

        def url(path: str, **query: object) -> str:
            return _url(request, path, query)

        def static(name: str) -> str:
            return _url(request, f"/static/{self._static[name][0]}", {})

        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        query = {name: value for name, value in request.query_params.multi_items() if name != "notice"}
        theme = next(iter(cookie_values(request_headers(request.scope), THEME_COOKIE)), "")
        return self._environment.get_template(template).render(
            {
                "caller": caller,
                "allows": allows,
                "url": url,
                "static": static,
                "path": path,
                "here": f"{path}?{urlencode(query)}" if query else path,
                "query": request.query_params,
                "notice": self._notices.get(request.query_params.get("notice", "")),
                "theme": theme if theme in THEMES else "",
                "backend": redact_url(table.backend),
                "revision": table.revision,
                "dead": dead_letters(self._site.sampler.reading, caller),
                "rejected": self._site.sampler.watch.rejected,
                **values,
            }
        )


def dead_letters(reading: Reading, caller: Caller | None) -> int:
    """Return how many dead letters a caller may see, as far as it is known."""
    states = reading.status.routes if reading.status and caller else ()
    return sum(
        state.dead or 0 for state in states if caller and caller.allows_route(Role.VIEWER, state.route)
    )


@cache
def _environment() -> Environment:
    """Return the templates. Each is compiled once in a process, which takes 10 ms."""
    environment = Environment(
        loader=PackageLoader("abe_router.http.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    environment.globals.update(navigation=NAVIGATION, icon=formats.icon, route_path=route_path)
    return environment


def route_path(name: str) -> str:
    """Return the part of a URL for a route or a key: KEY or KEY/GROUP, with each part quoted."""
    return "/".join(quote(part, safe="") for part in name.split("/"))


async def read_form(request: Request, limit: int = MAX_FORM) -> Mapping[str, str]:
    """Return the fields of a form; of a field that is given twice, the last value.

    Raise Refusal if the form is longer than `limit` bytes, or has too many fields.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise Refusal(413, "too-large", "The body is too large", f"the limit is {limit:,} bytes")
    try:
        return dict(
            parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        )
    except ValueError:
        raise invalid(f"a form has at most {MAX_FIELDS:,} fields") from None


def read_number(request: Request, name: str, default: int, *, most: int) -> int:
    """Return a number of the query; raise Refusal if it is not a whole number from 1 to `most`."""
    return read_whole(request.query_params.get(name), name, default, most=most)


async def tried(answer: Awaitable[T]) -> tuple[T | None, str]:
    """Return an answer of the backend; or None, and why there is none: a page shows the rest without it."""
    try:
        return await answer, ""
    except BackendError as error:
        return None, mask_credentials(str(error))


def is_local(path: str) -> bool:
    """Return whether a browser stays at this server if it goes to a path."""
    return path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()


def _url(request: Request, path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, "")}
    tail = f"?{urlencode(given)}" if given else ""
    return f"{request.scope.get('root_path', '')}{path}{tail}"


def _static_file(name: str) -> tuple[str, bytes]:
    """Return the name of a static file with a hash of its content, and the content."""
    content = files("abe_router.http.dashboard").joinpath("static", name).read_bytes()
    stem, _, kind = name.rpartition(".")
    return f"{stem}.{sha256(content).hexdigest()[:12]}.{kind}", content
