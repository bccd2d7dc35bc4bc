"""docs/http-api.md: it lists every endpoint and every problem, and its requests get the answers it shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from abe_router.backends import make_backend
from abe_router.http.app import make_app
from abe_router.http.endpoint import Endpoint
from abe_router.http.security import Security
from abe_router.http.site import Site
from abe_router.operations.access import load_table
from abe_router.routing.table import RouteTable

from .running import FixedSource, serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "http-api.md"
HEAD = "| endpoint | role | |\n|---|---|---|\n"
BLOCK = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def table_of_endpoints() -> str:
    application = make_app(Site(FixedSource(RouteTable(), make_backend("memory://")), Security()))
    endpoints = [route for route in application.routes if isinstance(route, Endpoint)]
    rows = [
        (re.sub(r":\w+}", "}", each.path), each.method, each.role or "any", each.summary)
        for each in endpoints
    ]
    return "".join(
        f"| `{method} {path}` | {role} | {summary} |\n" for path, method, role, summary in sorted(rows)
    )


def test_page_lists_every_endpoint() -> None:
    before, _, rest = PAGE.read_text().partition(HEAD)
    shown, blank, after = rest.partition("\n\n") if not rest.startswith("\n") else ("", "\n", rest[1:])
    if os.environ.get("ABE_ROUTER_REWRITE"):
        PAGE.write_text(f"{before}{HEAD}{table_of_endpoints()}\n{after}")
        return
    assert f"{shown}\n" == table_of_endpoints(), "ABE_ROUTER_REWRITE=1 rewrites the table"
    assert blank


def test_page_describes_every_type_of_problem() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "abe_router" / "http").glob("*.py"))
    used = set(re.findall(r'(?:Refusal|problem)\(\s*\d{3},\s*"([a-z-]+)"', sources))
    problems = PAGE.read_text().partition("\n## Problems\n")[2]
    assert set(re.findall(r"^### (.+)$", problems, re.MULTILINE)) == used


async def test_requests_of_the_page_get_the_answers_of_the_page(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    for _, title, text in blocks:
        if title:
            (tmp_path / title).parent.mkdir(exist_ok=True)
            (tmp_path / title).write_text(text)
    exchanges = [text for language, _, text in blocks if language == "http"]
    async with serving(load_table(tmp_path / "routes.yaml"), make_backend("memory://")) as api:
        for request, expected in zip(exchanges[::2], exchanges[1::2], strict=True):
            head, _, body = request.partition("\n\n")
            (method, path), *headers = [
                line.split(": " if n else " ") for n, line in enumerate(head.split("\n"))
            ]
            sent = dict(headers)
            assert method == "POST"
            answer = await api.post(path, body.encode(), sent.pop("Content-Type"), headers=sent)
            kind = answer.headers["content-type"]
            reason = {422: "Unprocessable Content"}.get(answer.status_code, answer.reason_phrase)
            shown = f"{answer.status_code} {reason}\nContent-Type: {kind}\n\n{answer.text.rstrip()}\n"
            pattern = re.escape(expected).replace(re.escape("..."), ".+?")
            assert re.fullmatch(pattern, shown, re.DOTALL), shown
    assert len(exchanges) == 16
