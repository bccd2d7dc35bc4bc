"""Republishing over HTTP: the option, the roles, and what an answer says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from abe_router.errors import BackendUnavailable
from abe_router.http.access import digest

from .serving import SECRET, Serving, add_dead_letter, all_tokens, ask, routes_file, secret, serving

ROUTE = "/v1/dead-letters/orders.created/billing"
ALLOWED = "  republish: true\n  tokens:"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """Yield a server that allows to republish, with a token that publishes and reads."""
    roles = f"{{sha256: {digest(secret('editor'))}, roles: [publisher, reader]}}"
    text = routes_file(all_tokens() | {"editor": roles}).replace("  tokens:", ALLOWED)
    async with serving(tmp_path, text) as found:
        yield found


async def newest(served: Serving) -> tuple[bytes, dict[str, str]]:
    message = (await served.backend.peek("orders.created", None, limit=100))[-1].message
    return message.body, dict(message.headers)


async def test_draft_is_changed_and_published_with_its_masked_values(served: Serving) -> None:
    id = await add_dead_letter(served, {"total": 1, "card": SECRET})
    path = f"{ROUTE}/{id}/republish"
    draft = (await ask(served, "admin", "GET", path)).json()
    assert draft["payload"] == {"total": 1, "card": "(masked /card)"}
    body = {
        "payload": draft["payload"] | {"total": 2},
        "headers": {"x-tenant": "eu"},
        "purge": True,
        "why": "the total was wrong",
    }
    answer = await ask(served, "admin", "POST", path, json=body)
    assert answer.status_code == 202
    assert answer.json() == {
        "id": draft["id"],
        "duplicate": False,
        "changed": ["/total", "header x-tenant"],
        "purged": True,
        "failure": "",
    }
    stored, headers = await newest(served)
    assert stored == f'{{"total":2,"card":"{SECRET}"}}'.encode()
    assert headers == {"x-tenant": "eu", "abe-cause": draft["cause"]}
    assert (await ask(served, "admin", "POST", path, json=body)).status_code == 404
    (act,) = (await ask(served, "operator", "GET", "/v1/audit")).json()
    assert (act["action"], act["author"], act["why"]) == ("dead republish", "admin", "the total was wrong")
    assert act["result"] == f"published {draft['id']}; changed /total, header x-tenant; purged"


async def test_it_is_off_without_the_option(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        path = f"{ROUTE}/{await add_dead_letter(served, {})}/republish"
        for method in ("GET", "POST"):
            answer = await ask(served, "admin", method, path, **({"json": {}} if method == "POST" else {}))
            assert answer.status_code == 403
            assert "set `http: {republish: true}`" in answer.json()["detail"]
        page = await ask(
            served, "admin", "GET", path.replace("/v1/dead-letters", "/dead").removesuffix("/republish")
        )
        assert page.text.count("the routes file does not allow it") == 2
        assert "the routes file does not allow it" in (await ask(served, "admin", "GET", "/permissions")).text


async def test_it_needs_the_roles_that_its_parts_need(served: Serving) -> None:
    path = f"{ROUTE}/{await add_dead_letter(served, {'total': 1})}/republish"
    for role in ("viewer", "reader", "publisher", "operator", "orders-publisher"):
        assert (await ask(served, role, "GET", path)).status_code == 403, role
        assert (await ask(served, role, "POST", path, json={"payload": {}})).status_code == 403, role
    purging = await ask(served, "editor", "POST", path, json={"payload": {"total": 2}, "purge": True})
    assert purging.status_code == 403
    assert (await newest(served))[0] == b'{"total":1}'
    kept = await ask(served, "editor", "POST", path, json={"payload": {"total": 2}})
    assert (kept.status_code, kept.json()["purged"]) == (202, False)
    again = await ask(served, "editor", "POST", path, json={"payload": {"total": 3}})
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert (await newest(served))[0] == b'{"total":2}'


async def test_refusals_say_why_and_publish_nothing(served: Serving) -> None:
    path = f"{ROUTE}/{await add_dead_letter(served, {'total': 1, 'card': SECRET})}/republish"
    for payload, status, text in (
        ({"total": -1}, 422, "/total"),
        ({"note": "(masked /card)"}, 409, "is not a sensitive place"),
        ({"card": "(masked)"}, 409, "stands for a masked one"),
    ):
        answer = await ask(served, "admin", "POST", path, json={"payload": payload})
        assert (answer.status_code, text in answer.text) == (status, True), answer.text
    malformed = await ask(served, "admin", "POST", path, json={"payload": {"x": [[[]]]}, "headers": {"a": 1}})
    assert malformed.status_code == 400
    assert (await ask(served, "admin", "POST", f"{ROUTE}/unknown/republish", json={})).status_code == 404

    async def fail(_: object) -> None:
        raise BackendUnavailable("the answer was lost")

    served.backend.append_once = fail  # type: ignore[assignment,method-assign]
    answer = await ask(served, "admin", "POST", path, json={"payload": {"total": 2}})
    assert answer.status_code == 503
    assert "within 30d that creates no duplicate" in answer.json()["detail"]
    served.draining = True
    assert (await ask(served, "admin", "POST", path, json={})).status_code == 503
