"""Publishing over HTTP: ids, headers, limits, CloudEvents, rights, and a backend that fails."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from abe_router.backends import make_backend
from abe_router.errors import BackendUnavailable
from abe_router.http import publish, publish_bulk
from abe_router.http.access import Caller, Role
from abe_router.http.body import BodyBudget
from abe_router.http.site import Readiness
from abe_router.messages.message import MAX_BYTES, Message
from abe_router.operations import bulk
from abe_router.operations.access import load_table
from abe_router.routing.table import RouteTable

from .running import Api, serving

ROUTES = """\
schemas: .
trace: {baggage: [tenant]}
routes:
  orders.created: {schema: order.json}
  orders.#: {}
  payments.settled: {dedupe: 1h}
  refunds.issued: {id: /refund, dedupe: 1h}
"""
CALLERS = {
    "viewer": Caller("viewer", frozenset({Role.VIEWER, Role.READER, Role.OPERATOR})),
    "orders": Caller("orders", frozenset({Role.PUBLISHER}), ("orders.*",)),
}
NDJSON, EVENT, BATCH = (
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
)


@pytest.fixture
def table(tmp_path: Path) -> RouteTable:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "order.json").write_text('{"properties": {"total": {"minimum": 0}}}')
    return load_table(tmp_path / "routes.yaml")


@pytest.fixture(autouse=True)
def _whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch be whole also on a machine that stops this process now and then."""
    monkeypatch.setattr(publish_bulk, "QUICK", 60.0)


@pytest.fixture
async def api(table: RouteTable) -> AsyncIterator[Api]:
    async with serving(table, make_backend("memory://"), CALLERS) as running:
        yield running


async def stored(api: Api, pattern: str = "#") -> list[Message]:
    return [each.message for each in await api.source.backend.peek(pattern, None, limit=1000)]


def event(**members: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "orders.paid", **members}


async def test_message_is_stored_as_the_bytes_that_were_sent(api: Api) -> None:
    body = b'{"total":1.10, "id": 123456789012345678901234567890}'
    headers = {"Abe-Header-Source": "caf\u00e9".encode(), "X-Other": "no"}
    answer = await api.client.post(
        "/v1/publish/orders.created",
        content=body,
        headers=[
            (b"Authorization", b"Bearer admin"),
            (b"Content-Type", b"Application/JSON; charset=UTF-8"),
            *(
                (name.encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in headers.items()
            ),
        ],
    )
    (message,) = await stored(api)
    assert (answer.status_code, answer.json()) == (202, {"id": message.id})
    assert (message.body, message.headers) == (body, {"source": "caf\u00e9"})


async def test_trace_context_of_the_request_goes_with_the_message(api: Api) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = {"traceparent": parent, "tracestate": "a=b", "baggage": "tenant=7, user=ada"}
    await api.post("/v1/publish/orders.paid", b"1", headers=context)
    await api.post("/v1/publish/orders.paid", b"1", headers={"traceparent": "nonsense", "tracestate": "a=b"})
    first, second = await stored(api)
    assert (first.headers, second.headers) == (
        {"traceparent": parent, "tracestate": "a=b", "baggage": "tenant=7"},
        {},
    )


@pytest.mark.parametrize("key", ["k-1", '"k-1"', '"with \\"quotes\\" and \\\\"'])
async def test_idempotency_key_is_the_id_and_a_repetition_is_a_duplicate(api: Api, key: str) -> None:
    headers = {"Idempotency-Key": key}
    first = await api.post("/v1/publish/payments.settled", b"{}", headers=headers)
    again = await api.post("/v1/publish/payments.settled", b"{}", headers=headers)
    (message,) = await stored(api)
    assert message.id == json.loads(key) if key.startswith('"') else message.id == key
    assert (first.status_code, first.json()) == (202, {"id": message.id})
    assert (again.status_code, again.json()) == (200, {"id": message.id, "duplicate": True})


@pytest.mark.parametrize(
    ("path", "body", "kind", "key", "status"),
    [
        ("/orders.paid", b"{}", "application/json", "k", 400),
        ("/refunds.issued", b'{"refund": "k"}', "application/json", "k", 202),
        ("/refunds.issued", b'{"refund": "other"}', "application/json", "k", 422),
        ("/payments.settled", b"{}", "application/json", "x" * 256, 422),
        ("/payments.settled", b"{}", "application/json", "", 400),
        ("/payments.settled", b"{}", NDJSON, "k", 400),
        ("", json.dumps(event(type="payments.settled")).encode(), EVENT, "k", 400),
    ],
)
async def test_idempotency_key_is_refused_where_it_has_no_effect(
    api: Api, path: str, body: bytes, kind: str, key: str, status: int
) -> None:
    answer = await api.post(f"/v1/publish{path}", body, kind, headers={"Idempotency-Key": key})
    assert answer.status_code == status
    assert len(await stored(api)) == (status == 202)


@pytest.mark.parametrize(
    ("path", "kind", "headers"),
    [
        ("/orders.paid", "application/x-www-form-urlencoded", {}),
        ("/orders.paid", "multipart/form-data", {}),
        ("/orders.paid", "text/plain", {}),
        ("/orders.paid", "", {}),
        ("/orders.paid", "application/json; charset=latin-1", {}),
        ("/orders.paid", "application/json", {"Content-Encoding": "gzip"}),
        ("/orders.paid", "application/cloudevents+avro", {}),
        ("", "application/json", {}),
    ],
)
async def test_body_of_another_type_is_refused(
    api: Api, path: str, kind: str, headers: dict[str, str]
) -> None:
    answer = await api.post(f"/v1/publish{path}", b"{}", kind, headers=headers)
    assert answer.status_code == 415
    assert await stored(api) == []


@pytest.mark.parametrize("chunked", [True, False])
async def test_body_over_the_limit_is_refused_while_it_is_read(api: Api, chunked: bool) -> None:
    body = b'"' + b"x" * (MAX_BYTES + 100_000) + b'"'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    answer = await api.post("/v1/publish/orders.paid", chunks() if chunked else body)
    assert (answer.status_code, answer.json()["title"]) == (413, "The body is too large")
    assert await stored(api) == []


async def test_bodies_share_a_budget_and_give_it_back(
    table: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = BodyBudget(1000)
    monkeypatch.setattr(publish, "BodyBudget", lambda: budget)
    async with serving(table, make_backend("memory://")) as api:
        gate = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b'"' + b"x" * 800
            await gate.wait()
            yield b'"'

        holding = asyncio.create_task(api.post("/v1/publish/orders.paid", slow()))
        while budget.free > 500:
            await asyncio.sleep(0.005)
        refused = await api.post("/v1/publish/orders.paid", b'"' + b"y" * 400 + b'"')
        gate.set()
        accepted = await holding
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (accepted.status_code, budget.free) == (202, 1000)


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [("/orders.paid", "application/json", b"1"), ("/orders.paid", NDJSON, b"1\n2\n")],
)
async def test_draining_router_refuses_messages(api: Api, path: str, kind: str, body: bytes) -> None:
    api.source.readiness = Readiness(started=True, draining=True)
    answer = await api.post(f"/v1/publish{path}", body, kind)
    assert (answer.status_code, answer.json()["title"]) == (503, "The router is about to stop")
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("key", "headers", "hint"),
    [
        ("orders.paid", {}, "it may arrive twice"),
        ("payments.settled", {"Idempotency-Key": "k"}, "within 1h that creates no duplicate"),
    ],
)
async def test_outcome_is_unknown_when_the_backend_fails(
    api: Api, monkeypatch: pytest.MonkeyPatch, key: str, headers: dict[str, str], hint: str
) -> None:
    async def fail(*_: Any) -> Any:
        raise BackendUnavailable("cannot reach redis://ada:secret@host: reset")

    monkeypatch.setattr(api.source.backend, "append", fail)
    monkeypatch.setattr(api.source.backend, "append_once", fail)
    answer = await api.post(f"/v1/publish/{key}", b"{}", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert hint in answer.json()["detail"]
    assert "secret" not in answer.text
    assert answer.json()["id"] == headers.get("Idempotency-Key", answer.json()["id"])


@pytest.mark.parametrize(
    ("kind", "body"), [("application/json", b"1"), (NDJSON, b"1\n2\n"), (BATCH, b"[{}]")]
)
async def test_nothing_is_published_while_the_backend_is_not_open(
    api: Api, monkeypatch: pytest.MonkeyPatch, kind: str, body: bytes
) -> None:
    def fail(_: object) -> Any:
        raise BackendUnavailable("the backend cannot be reached since the start")

    class Closed(type(api.source)):
        backend = property(fail, lambda *_: None)

    monkeypatch.setattr(api.source, "__class__", Closed)
    answer = await api.post("/v1/publish/orders.paid", body, kind)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["type"].endswith("#backend-unavailable")


async def test_lines_end_at_the_batch_in_which_the_backend_fails(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, sizes = api.source.backend.append, []

    async def fail_third(messages: Sequence[Message]) -> None:
        sizes.append(len(messages))
        if len(sizes) == 3:
            raise BackendUnavailable("the connection was lost")
        await append(messages)

    monkeypatch.setattr(api.source.backend, "append", fail_third)
    body = b"\n".join(b"%d" % n for n in range(450))
    answer = await api.post("/v1/publish/orders.paid", body, NDJSON)
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert (answer.status_code, "retry-after" in answer.headers, sizes) == (503, True, [100, 100, 100])
    assert [result.get("status", 202) for result in results] == [202] * 200 + [503] * 100
    assert [result["line"] for result in results] == list(range(1, 301))
    assert len(await stored(api)) == 200


async def test_lines_over_the_limit_are_refused_after_the_first_were_published(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_bulk, "MAX_ITEMS", 250)
    answer = await api.post("/v1/publish/orders.paid", b"1\n" * 400, NDJSON)
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.status_code == 413
    assert (len(results), results[-1]["line"], results[-1]["status"]) == (201, 201, 413)
    assert len(await stored(api)) == 200


async def test_violations_of_further_lines_are_left_out_when_the_results_are_long(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_bulk, "MAX_RESULTS", 500)
    answer = await api.post("/v1/publish/orders.created", b'{"total": -1}\n' * 10, NDJSON)
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert [result["status"] for result in results] == [422] * 10
    assert "errors" in results[0]
    assert "errors" not in results[-1]


@pytest.mark.parametrize("kind", [NDJSON, "application/json"])
async def test_payloads_with_many_violations_let_other_requests_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "routes.yaml").write_text("schemas: .\nroutes: {orders.many: {schema: many.json}}")
    (tmp_path / "many.json").write_text('{"items": {"required": ["sku"]}}')
    payload = json.dumps([{}] * 500).encode()
    async with serving(load_table(tmp_path / "routes.yaml"), make_backend("memory://")) as api:
        monkeypatch.setattr(publish_bulk, "QUICK", 0.0)  # so also a fast machine finds the lines slow
        threads = set()

        def noted(*args: Any, **options: Any) -> Any:
            threads.add(threading.current_thread().name)
            return prepare(*args, **options)

        prepare = bulk.prepare
        monkeypatch.setattr(bulk, "prepare", noted)
        monkeypatch.setattr(publish, "prepare", noted)
        body = payload + b"\n" + payload if kind == NDJSON else payload
        answer = await api.post("/v1/publish/orders.many", body, kind)
    *_, last = [json.loads(line) for line in answer.text.splitlines()]
    assert last["status"] == 422
    assert last["errors"]  # as many as are explained in their time
    assert "http-publish_0" in threads


async def test_duplicates_among_lines_are_marked(api: Api) -> None:
    lines = [{"key": "payments.settled", "payload": n, "id": id} for n, id in enumerate("abab")]
    answer = await api.post("/v1/publish", "\n".join(map(json.dumps, lines)).encode(), NDJSON)
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert [(r["line"], r["id"], r.get("duplicate", False)) for r in results] == [
        (1, "a", False),
        (2, "b", False),
        (3, "a", True),
        (4, "b", True),
    ]
    assert [message.payload for message in await stored(api)] == [0, 1]


async def test_lines_arrive_in_parts_and_are_published_before_the_last(api: Api) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"1\n" * 150 + b'"ha'
        while len(await stored(api)) < 100:
            await asyncio.sleep(0.005)
        yield b'lf"\n'

    answer = await api.post("/v1/publish/orders.paid", parts(), NDJSON)
    assert answer.status_code == 200
    assert (await stored(api))[-1].payload == "half"


@pytest.mark.parametrize(
    ("token", "path", "kind", "body", "statuses"),
    [
        ("viewer", "/orders.paid", "application/json", b"1", [403]),
        ("orders", "/orders.paid", "application/json", b"1", [202]),
        ("orders", "/payments.settled", "application/json", b"1", [403]),
        ("orders", "/orders.eu.paid", "application/json", b"1", [403]),
        ("orders", "", EVENT, json.dumps(event(type="payments.settled")).encode(), [403]),
        ("orders", "/payments.settled", NDJSON, b"1", [403]),
        (
            "orders",
            "",
            NDJSON,
            b'{"key": "orders.paid", "payload": 1}\n{"key": "payments.settled", "payload": 1}\n',
            [200, 202, 403],
        ),
        (
            "orders",
            "",
            BATCH,
            json.dumps([event(), event(type="payments.settled")]).encode(),
            [200, 202, 403],
        ),
    ],
)
async def test_token_publishes_its_keys_alone(
    api: Api, token: str, path: str, kind: str, body: bytes, statuses: list[int]
) -> None:
    answer = await api.post(f"/v1/publish{path}", body, kind, token=token)
    found = [answer.status_code]
    if answer.status_code == 200:
        results = answer.json() if kind == BATCH else [json.loads(line) for line in answer.text.splitlines()]
        found += [result.get("status", 202) for result in results]
    assert found == statuses
    assert len(await stored(api)) == statuses.count(202)


async def test_structured_event_becomes_a_message(api: Api) -> None:
    sent = event(
        subject="7",
        time="2026-11-26T10:00:00Z",
        traceparent="00-1",
        retries=3,
        urgent=True,
        note=None,
        datacontenttype="application/vnd.shop+json",
        data={"total": 5},
    )
    answer = await api.post("/v1/publish", json.dumps(sent).encode(), f"{EVENT}; charset=utf-8")
    (message,) = await stored(api)
    assert (answer.status_code, answer.json()) == (202, {"id": "e-1"})
    assert (message.id, message.key, message.payload) == ("e-1", "orders.paid", {"total": 5})
    assert message.headers == {
        "ce-specversion": "1.0",
        "ce-id": "e-1",
        "ce-source": "/shop",
        "ce-type": "orders.paid",
        "ce-subject": "7",
        "ce-time": "2026-11-26T10:00:00Z",
        "ce-retries": "3",
        "ce-urgent": "true",
        "traceparent": "00-1",
    }


async def test_binary_event_becomes_the_same_message_as_a_structured_one(api: Api) -> None:
    attributes = event(subject="a b \u20ac \U0001f600", source="/shop?x=1%")
    structured = {**attributes, "data": {"total": 5}}
    await api.post("/v1/publish", json.dumps(structured).encode(), EVENT)
    encoded = {
        "ce-specversion": "1.0",
        "ce-id": "e-1",
        "ce-source": "/shop?x=1%25",
        "ce-type": "orders.paid",
        "CE-Subject": "a%20b%20%E2%82%AC%20%F0%9F%98%80",
    }
    answer = await api.post("/v1/publish", json.dumps(structured["data"]).encode(), headers=encoded)
    one, other = await stored(api)
    assert answer.status_code == 202
    assert (one.key, one.id, one.headers, one.payload) == (other.key, other.id, other.headers, other.payload)


async def test_batch_has_one_result_for_each_event_in_order(api: Api) -> None:
    events = [
        event(id="1", data=1),
        event(id="2", type="orders.created", data={"total": -1}),
        event(id="3", data_base64=base64.b64encode(b'{"a": 1}').decode()),
        event(id="4", type="stock.low"),
        event(id=""),
        {},
        event(id="5"),
    ]
    answer = await api.post("/v1/publish", json.dumps(events).encode(), BATCH)
    assert answer.status_code == 200
    assert [result.get("status", result.get("id")) for result in answer.json()] == [
        "1",
        422,
        "3",
        404,
        400,
        400,
        "5",
    ]
    assert answer.json()[1]["errors"][0]["pointer"] == "/total"
    assert [message.payload for message in await stored(api)] == [1, {"a": 1}, None]
    assert (await api.post("/v1/publish", b"[]", BATCH)).json() == []
    assert (await api.post("/v1/publish", b"{}", BATCH)).status_code == 400


async def test_key_of_the_path_replaces_the_type_of_the_event(api: Api) -> None:
    sent = event(type="com.example.order.created")
    answer = await api.post("/v1/publish/orders.paid", json.dumps(sent).encode(), EVENT)
    (message,) = await stored(api)
    assert (answer.status_code, message.key) == (202, "orders.paid")
    assert message.headers["ce-type"] == "com.example.order.created"


async def test_id_in_the_payload_comes_before_the_id_of_the_event(api: Api) -> None:
    sent = event(type="refunds.issued", data={"refund": "r-1"})
    answer = await api.post("/v1/publish", json.dumps(sent).encode(), EVENT)
    assert answer.json() == {"id": "r-1"}
    assert (await stored(api))[0].headers["ce-id"] == "e-1"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"source": None}, "source"),
        ({"id": ""}, "id"),
        ({"type": ""}, "type"),
        ({"Upper": "x"}, "Upper"),
        ({"ext": {"a": 1}}, "ext"),
        ({"ext": 1.5}, "ext"),
        ({"ext": 2**31}, "ext"),
        ({"ext": "a\nb"}, "ext"),
        ({"datacontenttype": "text/xml", "data": "<a/>"}, "text/xml"),
        ({"data_base64": "*"}, "Base64"),
        ({"data_base64": 7}, "Base64"),
        ({"data_base64": "e30=", "data": 1}, "both"),
        ({"data_base64": "/w=="}, "JSON"),
    ],
)
async def test_malformed_event_is_refused_with_its_reason(
    api: Api, members: dict[str, Any], reason: str
) -> None:
    answer = await api.post("/v1/publish", json.dumps(event(**members)).encode(), EVENT)
    assert answer.status_code == 400
    assert reason in answer.json()["detail"]
    assert await stored(api) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"ce-subject": "%C0%A0"}, 400),
        ({"ce-datacontenttype": "application/json"}, 400),
        ({"Content-Type": "text/xml"}, 400),
        ({"ce-subject": '"quoted \\"text\\""'}, 202),
    ],
)
async def test_binary_event_is_read_as_the_binding_says(
    api: Api, headers: dict[str, str], status: int
) -> None:
    attributes = {f"ce-{name}": value for name, value in event().items()}
    answer = await api.post("/v1/publish", b"1", headers={**attributes, **headers})
    assert answer.status_code == status
    if status == 202:
        assert (await stored(api))[0].headers["ce-subject"] == 'quoted "text"'


async def test_batch_that_is_too_long_or_no_batch_is_refused_whole_and_shortly(api: Api) -> None:
    for body, status in ((b"[" + b"{}," * 100_000 + b"{}]", 413), (b"[" + b"0," * 10**6 + b"0]", 400)):
        answer = await api.post("/v1/publish", body, BATCH)
        assert answer.status_code == status
        assert len(answer.content) < 1_000
    many = b",".join(b'"a%d": 0' % number for number in range(20_000))
    answer = await api.post("/v1/publish", b"{%b}" % many, EVENT)
    assert "its attributes are longer than 65,536 bytes" in answer.json()["detail"]
    assert await stored(api) == []
