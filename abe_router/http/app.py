"""The ASGI applications: the API with the dashboard, and the probes alone for a second listener."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import AbeRouterError
from abe_router.http import (
    acts,
    dead_letters,
    edits,
    events,
    metrics,
    openapi,
    probes,
    publish,
    reading,
    replays,
    republish,
    tail,
)
from abe_router.http.dashboard import (
    audit,
    dead,
    graph,
    login,
    messages,
    one_route,
    permissions,
    route_list,
    workers,
)
from abe_router.http.dashboard import edits as edit_pages
from abe_router.http.dashboard import publish as publish_pages
from abe_router.http.dashboard import tail as tail_page
from abe_router.http.dashboard.errors import error_page
from abe_router.http.dashboard.page import Pages
from abe_router.http.guard import Guard, Present, on_http_error
from abe_router.http.problem import Refusal, problem_of
from abe_router.http.security import Security
from abe_router.http.site import Site

#: The modules of the API; each returns its endpoints. `Endpoint` describes those under /v1.
ENDPOINTS: tuple[Callable[[Site], list[Route]], ...] = (
    probes.health_routes,
    reading.routes,
    metrics.routes,
    dead_letters.routes,
    replays.routes,
    republish.routes,
    acts.routes,
    edits.routes,
    publish.routes,
    tail.routes,
    events.routes,
    openapi.routes,
)

#: The modules of the dashboard; each returns its pages.
PAGES: tuple[Callable[[Site, Pages], list[Route]], ...] = (
    login.routes,
    permissions.routes,
    route_list.routes,
    one_route.routes,
    workers.routes,
    graph.routes,
    dead.routes,
    edit_pages.routes,
    audit.routes,
    publish_pages.routes,
    tail_page.routes,
    messages.routes,
)


def make_app(site: Site) -> Starlette:
    """Return the API, the dashboard, the probes and the metrics, for callers with a token or a session."""
    pages = Pages(site)
    routes = [
        *probes.probe_routes(site),
        *(route for endpoints in ENDPOINTS for route in endpoints(site)),
        *pages.static_routes(),
        *(route for module in PAGES for route in module(site, pages)),
    ]
    return _application(routes, site.security, partial(error_page, pages))


def make_probes_app(site: Site) -> Starlette:
    """Return the probes and the metrics alone, for callers without a token."""
    routes = [*probes.probe_routes(site), metrics.metrics_route(site, public=True)]
    return _application(routes, None, lambda _, answer: answer)


def _application(routes: list[Route], security: Security | None, present: Present) -> Starlette:
    """Return an application. `present` shows a refusal as the client wants it."""

    def shown(answer: Callable[[Request, Any], Response]) -> Callable[[Request, Exception], Response]:
        return lambda request, error: present(request.scope, answer(request, error))

    application = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, security=security, present=present)],
        exception_handlers={
            HTTPException: shown(on_http_error),
            Refusal: shown(lambda _, refused: refused.response()),
            AbeRouterError: shown(lambda _, error: problem_of(error)),
        },
    )
    application.router.redirect_slashes = False
    return application
