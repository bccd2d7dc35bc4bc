"""The live tail over HTTP: what clients see, what they do not, and what it costs while none watches."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from abe_router.backends import make_backend
from abe_router.http import event_stream, tail
from abe_router.http.access import Caller, Role, Token, digest
from abe_router.operations.access import load_table
from abe_router.routing.table import RouteTable

from .events import watching
from .running import serving

ROUTES = """\
schemas: .
routes:
  orders.created: {schema: order.json}
  orders.#: {}
"""
CALLERS = {
    "viewer": Caller("viewer", frozenset({Role.VIEWER})),
    "reader": Caller("reader", frozenset({Role.READER})),
    "orders": Caller("orders", frozenset({Role.READER}), ("orders.*",)),
    "publisher": Caller("publisher", frozenset({Role.PUBLISHER})),
}


@pytest.fixture
def table(tmp_path: Path) -> RouteTable:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "order.json").write_text('{"properties": {"card": {"x-sensitive": true}}}')
    return load_table(tmp_path / "routes.yaml")


async def until_watched(api: Any, number: int = 1) -> None:
    """Wait until so many streams are open, and the tail has found the end of what is stored."""
    while api.site.streams.open != number:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


async def test_reader_sees_masked_payloads_as_they_are_accepted(table: RouteTable) -> None:
    async with serving(table, make_backend("memory://"), CALLERS) as api:
        await api.source.backend.publish("orders.created", {"id": 0})
        async with watching(api, "/v1/tail", token="reader") as events:
            assert events.response.headers["content-type"].startswith("text/event-stream")
            assert events.response.headers["x-accel-buffering"] == "no"
            await until_watched(api)
            sent = await api.source.backend.publish(
                "orders.created", {"id": 10**30, "card": "4929"}, headers={"a": "b"}
            )
            event = await events.next()
    assert event is not None
    assert (event.name, event.data["id"], event.data["headers"]) == ("message", sent.id, {"a": "b"})
    assert event.data["payload"] == {"id": 10**30, "card": "(masked)"}
    assert event.id == event.data["cursor"]


async def test_viewer_sees_neither_payload_nor_headers(table: RouteTable) -> None:
    async with (
        serving(table, make_backend("memory://"), CALLERS) as api,
        watching(api, "/v1/tail", token="viewer") as events,
    ):
        await until_watched(api)
        await api.source.backend.publish("orders.created", {"secret": 1}, headers={"secret": "b"})
        event = await events.next()
    assert event is not None
    assert "payload" not in event.data
    assert "secret" not in str(event.data)


@pytest.mark.parametrize(
    ("token", "query", "status"),
    [
        ("publisher", "", 403),
        ("orders", "", 403),
        ("orders", "?pattern=orders.%23", 403),
        ("orders", "?pattern=orders.*", 200),
        ("viewer", "?where=/id=7", 409),
        ("reader", "?where=/id", 400),
        ("reader", "?where=id=7", 409),
        ("reader", "?pattern=orders..x", 409),
        ("reader", "?group=a/b", 409),
        ("reader", "?sample=0", 400),
        ("reader", "?sample=1000", 400),
        ("reader", "?sample=nan", 400),
        ("reader", "?" + "&".join(["where=/id=7"] * 11), 400),
    ],
)
async def test_request_is_refused_before_the_stream_begins(
    table: RouteTable, token: str, query: str, status: int
) -> None:
    async with (
        serving(table, make_backend("memory://"), CALLERS) as api,
        watching(api, f"/v1/tail{query}", token=token) as events,
    ):
        assert events.response.status_code == status


async def test_filter_by_key_and_by_a_value_in_the_payload(table: RouteTable) -> None:
    async with serving(table, make_backend("memory://")) as api:
        path = "/v1/tail?pattern=orders.paid&where=/id=7&where=/shop=north"
        async with watching(api, path) as events:
            await until_watched(api)
            for key, payload in [
                ("orders.created", {"id": 7, "shop": "north"}),
                ("orders.paid", {"id": 8, "shop": "north"}),
                ("orders.paid", {"id": 7, "shop": "north"}),
            ]:
                await api.source.backend.publish(key, payload)
            event = await events.next()
    assert event is not None
    assert (event.data["key"], event.data["payload"]["id"]) == ("orders.paid", 7)


async def test_stream_goes_on_after_the_last_event_of_the_client(table: RouteTable, tmp_path: Path) -> None:
    async with serving(table, make_backend(f"sqlite:///{tmp_path}/shop.db")) as api:
        async with watching(api, "/v1/tail") as events:
            await until_watched(api)
            await api.source.backend.publish("orders.paid", 1)
            first = await events.next()
        assert first is not None
        await api.source.backend.publish("orders.paid", 2)
        async with watching(api, "/v1/tail", after=first.id) as events:
            second = await events.next()
        assert second is not None
        assert second.data["payload"] == 2


async def test_malformed_last_event_id_begins_with_new_messages(table: RouteTable) -> None:
    async with serving(table, make_backend("memory://")) as api:
        await api.source.backend.publish("orders.paid", 0)
        async with watching(api, "/v1/tail", after="no cursor") as events:
            skipped = await events.next()
            await asyncio.sleep(0.02)
            await api.source.backend.publish("orders.paid", 1)
            event = await events.next()
    assert skipped is not None
    assert event is not None
    assert (skipped.name, event.data["payload"]) == ("skipped", 1)


async def test_client_that_comes_back_late_goes_on_with_new_messages(
    table: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "RESUMED", 0.0)
    async with serving(table, make_backend("memory://")) as api:
        await api.source.backend.publish("orders.paid", 1)
        (stored,) = await api.source.backend.peek("#", None)
        await api.source.backend.publish("orders.paid", 2)
        async with watching(api, "/v1/tail", after=stored.cursor) as events:
            skipped = await events.next()
            await asyncio.sleep(0.02)
            await api.source.backend.publish("orders.paid", 3)
            event = await events.next()
    assert skipped is not None
    assert event is not None
    assert (skipped.name, event.data["payload"]) == ("skipped", 3)


async def test_clients_with_one_query_share_one_tail_and_none_is_read_without_clients(
    table: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(table, make_backend("memory://")) as api:
        started, reads = [], []
        peek, peek_end = api.source.backend.peek, api.source.backend.peek_end

        async def counted(*args: Any, **options: Any) -> Any:
            reads.append(args)
            return await peek(*args, **options)

        async def begun(*args: Any) -> Any:
            started.append(args)
            return await peek_end(*args)

        monkeypatch.setattr(api.source.backend, "peek", counted)
        monkeypatch.setattr(api.source.backend, "peek_end", begun)
        async with watching(api, "/v1/tail") as one, watching(api, "/v1/tail") as two:
            await until_watched(api, 2)
            await api.source.backend.publish("orders.paid", 1)
            assert await one.next() == await two.next()
        assert len(started) == 1
        await until_watched(api, 0)
        number = len(reads)
        await asyncio.sleep(0.3)
        assert len(reads) == number


async def test_streams_end_at_once_when_the_server_closes(table: RouteTable) -> None:
    async with serving(table, make_backend("memory://")) as api, watching(api, "/v1/tail") as events:
        await until_watched(api)
        api.site.closing.set()
        last, end = await events.next(), await events.next()
    assert last is not None
    assert (last.name, end) == ("closing", None)


async def test_number_of_streams_is_limited_and_one_token_leaves_places_for_others(table: RouteTable) -> None:
    async with serving(table, make_backend("memory://"), CALLERS) as api:
        api.site.streams = event_stream.StreamLimit(4)
        async with watching(api, "/v1/tail"), watching(api, "/v1/tail?sample=1"):
            await until_watched(api, 2)
            for path in ("/v1/tail", "/v1/events"):
                answer = await api.get(path)
                assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
                assert "token `admin` has 2 streams, and 2 of 4 are free" in answer.json()["detail"]
            async with watching(api, "/v1/tail", token="viewer"):
                await until_watched(api, 3)
                assert (await api.get("/v1/tail", token="viewer")).status_code == 429
        await until_watched(api, 0)


async def test_comments_keep_a_quiet_stream_open(table: RouteTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_EVERY", 0.02)
    async with serving(table, make_backend("memory://")) as api:
        async with watching(api, "/v1/tail") as events:
            await until_watched(api)
            await asyncio.sleep(0.2)
            await api.source.backend.publish("orders.paid", 1)
            await events.next()
        assert events.comments > 1


@pytest.mark.parametrize("remaining", [[], [Token(digest("reader"), CALLERS["viewer"])]])
async def test_stream_ends_when_the_token_is_removed_or_loses_rights(
    table: RouteTable, monkeypatch: pytest.MonkeyPatch, remaining: list[Token]
) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_EVERY", 0.02)
    async with (
        serving(table, make_backend("memory://"), CALLERS) as api,
        watching(api, "/v1/tail", token="reader") as events,
    ):
        await until_watched(api)
        api.site.security.update(remaining)
        last, end = await events.next(), await events.next()
    assert last is not None
    assert (last.name, end) == ("closing", None)


async def test_reload_masks_by_the_new_schemas(table: RouteTable, tmp_path: Path) -> None:
    async with serving(table, make_backend("memory://")) as api, watching(api, "/v1/tail") as events:
        await until_watched(api)
        (tmp_path / "order.json").write_text('{"properties": {"name": {"x-sensitive": true}}}')
        api.source.table = load_table(tmp_path / "routes.yaml")
        await api.source.backend.publish("orders.created", {"name": "Ada"})
        event = await events.next()
    assert event is not None
    assert event.data["payload"] == {"name": "(masked)"}


async def test_failure_of_the_backend_ends_the_stream_with_its_reason(
    table: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from abe_router.errors import BackendUnavailable

    async def fail(*_: Any, **__: Any) -> Any:
        raise BackendUnavailable("cannot reach redis://ada:secret@host: refused")

    async with serving(table, make_backend("memory://")) as api:
        monkeypatch.setattr(api.source.backend, "peek", fail)
        async with watching(api, "/v1/tail") as events:
            last, end = await events.next(), await events.next()
    assert last is not None
    assert (last.name, end) == ("error", None)
    assert "refused" in last.data["detail"]
    assert "secret" not in last.data["detail"]


async def test_client_that_does_not_read_loses_old_events_and_delays_no_other(table: RouteTable) -> None:
    async with serving(table, make_backend("memory://")) as api, watching(api, "/v1/tail") as quick:
        with socket.create_connection((api.address.host, api.address.port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            slow.sendall(f"GET /v1/tail HTTP/1.1\r\nHost: {api.address}\r\n".encode())
            slow.sendall(b"Authorization: Bearer admin\r\nConnection: close\r\n\r\n")
            await until_watched(api, 2)
            for number in range(6):
                await api.source.backend.publish("orders.paid", [number, "x" * 700_000])
                event = await quick.next()
                assert event is not None
                assert event.data["payload"][0] == number
            slow.setblocking(False)
            received = b""
            while b'"payload":[5,' not in received:
                received += await asyncio.get_running_loop().sock_recv(slow, 1_000_000)
    assert b'event: dropped\ndata: {"events":' in received
    assert b'"payload":[4,' not in received
