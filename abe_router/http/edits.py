"""The endpoints of edits: their history, the files of one, and the difference between two."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from abe_router.http.access import Role, require
from abe_router.http.endpoint import Content, Endpoint, Parameter, json_content, path_number, read_whole
from abe_router.http.site import Site, json_response
from abe_router.operations.history import Edit, EditContents, diff_edits, read_contents, read_history

#: Edits of one answer: by default, and at most.
DEFAULT_EDITS, MOST_EDITS = 50, 500


def routes(site: Site) -> list[Route]:
    """Return the endpoints."""

    async def list_edits(request: Request) -> Response:
        require(request, Role.VIEWER, "#")
        limit = read_whole(request.query_params.get("limit"), "limit", DEFAULT_EDITS, most=MOST_EDITS)
        return json_response(await read_history(site.source.backend, limit=limit))

    async def edit_files(request: Request) -> Response:
        require(request, Role.READER, "#")
        return json_response(await read_contents(site.source.backend, path_number(request)))

    async def edit_diff(request: Request) -> Response:
        require(request, Role.READER, "#")
        number = path_number(request)
        base = read_whole(request.query_params.get("base"), "base", max(1, number - 1))
        lines = await diff_edits(site.source.backend, number, base)
        return PlainTextResponse("".join(f"{line}\n" for line in lines))

    number = Parameter("number", "the number of the edit", "path", int)
    unknown = {404: "the edit or its files are not kept", 409: "the backend keeps no history"}
    return [
        Endpoint(
            "GET",
            "/v1/edits",
            list_edits,
            Role.VIEWER,
            "The edits of the routes file, newest first: accepted or rejected, by whom, and why",
            parameters=[Parameter("limit", f"{DEFAULT_EDITS} by default, at most {MOST_EDITS}", type=int)],
            answers={200: json_content(list[Edit], "the edits")},
            problems={400: "the limit is malformed", 409: "the backend keeps no history"},
        ),
        Endpoint(
            "GET",
            "/v1/edits/{number}",
            edit_files,
            Role.READER,
            "The files of an edit, before variables are replaced",
            parameters=[number],
            answers={200: json_content(EditContents, "the files by name")},
            problems=unknown,
        ),
        Endpoint(
            "GET",
            "/v1/edits/{number}/diff",
            edit_diff,
            Role.READER,
            "The difference between the files of two edits, as a patch",
            parameters=[number, Parameter("base", "the other edit; by default the one before", type=int)],
            answers={200: Content("the patch", {"text/plain; charset=utf-8": str})},
            problems={400: "a number is malformed", **unknown},
        ),
    ]
