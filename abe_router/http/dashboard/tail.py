"""The page of the live tail: the newest messages of a pattern or a group, and those that come."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Role, caller_of
from abe_router.http.dashboard.page import PageRoute, Pages
from abe_router.http.problem import Refusal
from abe_router.http.site import Site
from abe_router.http.tail import MOST_FILTERS, read_query
from abe_router.operations.errors import OperationError
from abe_router.operations.tail import Newest, Tailed, newest
from abe_router.text import mask_credentials, printable, shortened

#: Messages that the page has when it opens.
NEWEST = 50
#: Longest payload that is shown, in characters, and longest preview of one.
MAX_PAYLOAD, MAX_PREVIEW = 20_000, 200
#: Most keys and groups that the filter suggests.
MOST_NAMES = 500


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page."""

    async def tail(request: Request) -> Response:
        caller, table = caller_of(request), site.source.table
        params = request.query_params
        found, failure = Newest((), ""), ""
        wanted: list[tuple[str, str]] = [("pattern", params.get("pattern") or _default(caller.keys))]
        wanted += [("group", params["group"])] if params.get("group") else []
        filters = [text for text in params.getlist("where") if text][:MOST_FILTERS]
        wanted += [("where", text) for text in filters]
        shows_payloads = False
        try:
            scope = {**request.scope, "query_string": urlencode(wanted).encode()}
            query = read_query(Request(scope))
            shows_payloads = query.payloads
            found = await newest(
                site.source.backend,
                table,
                query.pattern,
                group=query.group,
                after=params.get("after", ""),
                limit=NEWEST,
                where=query.values(),
                payloads=query.payloads,
            )
        except Refusal as refused:
            if refused.status == 403:
                raise
            failure = refused.detail
        except (OperationError, BackendError) as error:
            failure = mask_credentials(str(error))
        names = [name for name in table.by_name if caller.allows_route(Role.VIEWER, name)]
        return await pages.render(
            request,
            "tail.html",
            title="Tail",
            failure=failure,
            found=found,
            messages=[_row(each) for each in reversed(found.messages)],
            pattern=wanted[0][1],
            group=params.get("group", ""),
            filters=filters,
            shows_payloads=shows_payloads,
            stream=f"/v1/tail?{urlencode(wanted)}",
            again=f"/tail?{urlencode([*wanted, ('after', found.after)])}",
            keys=[key for key in table.keys if caller.allows(Role.VIEWER, key)][:MOST_NAMES],
            groups=sorted({name.rpartition("/")[2] for name in names})[:MOST_NAMES],
        )

    return [PageRoute("/tail", tail, Role.VIEWER)]


def _default(keys: tuple[str, ...]) -> str:
    """Return the pattern that a caller sees first."""
    return "#" if "#" in keys else next(iter(keys), "#")


def _row(message: Tailed) -> dict[str, object]:
    if message.payload is msgspec.UNSET:
        payload = preview = ""
    else:
        body = msgspec.json.encode(message.payload)
        preview = printable(shortened(body.decode(), MAX_PREVIEW))
        lines = msgspec.json.format(body, indent=2).decode()[:MAX_PAYLOAD].split("\n")
        payload = "\n".join(map(printable, lines))
    headers = [f"{printable(name)}: {printable(value)}" for name, value in message.headers.items()]
    return {"message": message, "payload": payload, "preview": preview, "headers": "\n".join(headers)}
