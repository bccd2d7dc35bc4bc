"""The endpoints for machines that watch: the metrics for Prometheus, and the work for an autoscaler."""

from __future__ import annotations

import asyncio
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Role, require
from abe_router.http.endpoint import Endpoint, Parameter, json_content
from abe_router.http.problem import invalid
from abe_router.http.site import SharedAnswer, Site, json_response
from abe_router.messages.pattern import is_pattern
from abe_router.observe.metrics import CONTENT_TYPE
from abe_router.operations.metrics import Metrics
from abe_router.operations.replay import replays
from abe_router.operations.scale import Scale, scale_of
from abe_router.operations.status import Status

#: How long a scrape waits for the backend, in seconds. Then the metrics of the backend are left out.
SCRAPE_PATIENCE = 3.0
#: How long the number of replays is shared, in seconds.
REPLAYS_FRESH = 10.0


def metrics_route(site: Site, *, public: bool = False) -> Route:
    """Return the endpoint of the metrics; with `public`, for callers without a token."""
    metrics = Metrics()

    async def count_replays() -> Counter[str]:
        return Counter(replay.state for replay in await replays(site.source.backend))

    replay_counts = SharedAnswer(count_replays, fresh=REPLAYS_FRESH)

    async def scrape(request: Request) -> Response:
        if not public:
            require(request, Role.VIEWER, "#")
        status: Status | None = None
        counted: Counter[str] | None = None
        try:
            async with asyncio.timeout(SCRAPE_PATIENCE):
                status, counted = await asyncio.gather(site.status.get(), replay_counts.get())
        except (BackendError, TimeoutError):
            pass  # what the workers count is known all the same
        source = site.source
        text = metrics.render(
            revision=source.table.revision,
            counters=source.counters,
            workers=source.workers,
            backend_up=status is not None if source.backend_up is None else source.backend_up,
            status=status,
            replays=counted,
        )
        return Response(text, media_type=CONTENT_TYPE)

    return Route("/metrics", scrape)


def routes(site: Site) -> list[Route]:
    """Return the endpoints of the API."""

    async def scale(request: Request) -> Response:
        pattern = request.query_params.get("routes", "#")
        if not is_pattern(pattern):
            raise invalid("`routes` is a key or a pattern")
        caller = require(request, Role.VIEWER, pattern)
        status, counters = await site.status.get(), site.source.counters
        counts = counters.counts() if counters else {}
        return json_response(
            scale_of(
                [each for each in status.routes if caller.allows_route(Role.VIEWER, each.route)],
                {name: each for name, each in counts.items() if caller.allows_route(Role.VIEWER, name)},
                pattern,
            )
        )

    return [
        metrics_route(site),
        Endpoint(
            "GET",
            "/v1/scale",
            scale,
            Role.VIEWER,
            "The work of some routes in a few numbers, for an autoscaler such as KEDA",
            parameters=[Parameter("routes", "the key or the pattern of the routes; by default all")],
            answers={200: json_content(Scale, "the work, of all hosts")},
            problems={400: "the pattern is malformed"},
        ),
    ]
