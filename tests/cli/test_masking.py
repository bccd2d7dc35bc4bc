"""Sensitive values are in no output: payloads are damaged at random, and the handlers' errors quote them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import redis
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from abe_router import Router
from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.http.access import digest
from abe_router.http.app import make_app
from abe_router.messages.message import new_message
from abe_router.observe.events import DeadLettered, Retried
from abe_router.observe.logs import JSONFormatter, TextFormatter
from abe_router.runtime.failures import FAILURES
from abe_router.testing import RedisServer
from tests.conftest import LONGER
from tests.http_api.running import bearer, serving

from .conftest import Run, on_backend

pytestmark = pytest.mark.timeout(120)
KEY, GROUPS = "orders.created", ("strict", "open", "batch")
#: Dead letters of a group whose pages and answers are asked for.
SHOWN = 1_000 if LONGER else 8
#: A text that Python and JSON escape, and a number. Of one that an error cuts, 7 characters may be left.
SECRET, NUMBER = "xZ9-49Qp \"q\" 'é' mIdl \\ \n kQ7vWb3d", 7316249508
TRACES = re.compile(r"xZ9-49Qp|mIdl|kQ7vWb3d|7316249508|7,316,249,508")
PERSON = {
    "type": "object",
    "required": ["pin"],
    "properties": {"pin": {"type": "string", "x-sensitive": True}, "name": {"type": "string"}},
}
SCHEMA = {
    "$defs": {"person": PERSON},
    "type": "object",
    "required": ["card", "person"],
    "properties": {
        "id": {"type": "string"},
        "card": {"type": "string", "x-sensitive": True},
        "code": {"type": "integer", "x-sensitive": True},
        "person": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
        "people": {"type": "array", "items": {"$ref": "#/$defs/person"}},
        "map": {"allOf": [{"patternProperties": {"^p_": {"$ref": "#/$defs/person"}}}]},
    },
}
#: One group checks payloads, and the others get them as they are.
ROUTES = """\
backend: {url}
schemas: schemas
trace: {{ratio: 1}}
http: {{republish: true, tokens: {{admin: {{sha256: {token}, roles: admin}}}}}}
defaults: {{retry: {{attempts: 1}}, on_invalid: deliver}}
routes:
  orders.created:
    schema: order.json
    retain: 1h
    consumers:
      strict: {{handler: "masked_handlers:quote", on_invalid: dead_letter}}
      open: "masked_handlers:quote"
      later: {{handler: "masked_handlers:quote", retry: {{attempts: 2, initial: 10s, jitter: false}}}}
      batch: {{handler: "masked_handlers:quote_all", batch: {{size: 7}}}}
"""
HANDLERS = '''\
import itertools
import json

from abe_router import Reject, Retry

numbers = itertools.count()


def texts(payload):
    """Return texts that quote a payload in every way that handlers do."""
    whole = repr(payload)
    yield from (str(payload), whole, json.dumps(payload), json.dumps(payload, ensure_ascii=False))
    yield from (json.dumps(whole), repr(json.dumps(payload)), whole[: len(whole) // 2], whole[-40:])
    if isinstance(payload, dict):
        yield from map(str, payload.values())
        yield from (f"{code:,}" for code in [payload.get("code")] if type(code) is int)


def quote(payload):
    number = next(numbers)
    told = list(texts(payload))
    text = told[number % len(told)]
    match number % 8:
        case 0:
            raise KeyError(text)
        case 1:
            raise Reject(text)
        case 2:
            raise Retry(text)
        case 3:
            error = ValueError("noted")
            error.add_note(text)
            raise error
        case 4:
            raise ExceptionGroup(text, [TypeError(text), ValueError(text)])
        case 5:
            try:
                raise ValueError(text)
            except ValueError as error:
                raise RuntimeError(text) from error
        case 6:
            raise SyntaxError(text, ("<payload>", 1, 1, text))
        case _:
            raise ValueError(text)


def quote_all(payloads):
    quote(payloads)
'''


def payload() -> dict[str, Any]:
    person = {"pin": SECRET, "name": "Ann"}
    return {
        "id": "ord_1",
        "card": SECRET,
        "code": NUMBER,
        "person": person,
        "people": [person, person],
        "map": {"p_1": person},
    }


def damaged(random: Random) -> bytes:
    """Return the body of a message with a payload that is damaged up to three times."""
    value: Any = payload()
    for _ in range(random.randrange(4)):
        place = random.choice(("card", "person", "people", "map", ""))
        part = value.get(place, SECRET) if isinstance(value, dict) and place else value
        part = random.choice(
            (
                json.dumps(part),
                [part],
                [part] if place == "map" else {"wrong": part},
                f"card {SECRET}",
                NUMBER,
                [SECRET, {"wrong": SECRET}],
            )
        )
        if isinstance(value, dict) and place:
            value[place] = part
        else:
            value = part
    if isinstance(value, dict) and "card" in value and random.random() < 0.1:
        value[random.choice(("crad", "number", SECRET))] = value.pop("card")
    body = json.dumps(value, ensure_ascii=random.random() < 0.5).encode()
    return body if random.random() < 0.9 else body[: random.randrange(len(body))] + b"\xff"


@pytest.fixture
def url(backend: str, tmp_path: Path) -> Iterator[str]:
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path}/shop.db"
    elif not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    else:
        with RedisServer(tmp_path) as server:
            yield server.url


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Yield a function that returns what was logged and traced."""
    exporter, provider, lines = InMemorySpanExporter(), TracerProvider(), list[str]()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    formatters = (TextFormatter(), JSONFormatter(), logging.Formatter())

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(formatter.format(record) for formatter in formatters)

    root, handler = logging.getLogger(), Lines()
    root.addHandler(handler)
    monkeypatch.setattr(logging.getLogger("abe_router"), "level", logging.DEBUG)
    yield lambda: "\n".join([*lines, *(span.to_json() for span in exporter.get_finished_spans())])
    root.removeHandler(handler)
    provider.shutdown()


async def fail(url: str, number: int) -> list[tuple[str, str]]:
    """Publish damaged payloads until each has failed in every group; return what HTTP shows of them."""
    random, ended, enough = Random(28), 0, asyncio.Event()
    bodies = [damaged(random) for _ in range(number)]
    expected = 4 * number

    def on_event(_: object) -> None:
        nonlocal ended
        ended += 1
        if ended == expected:
            enough.set()

    router = Router.from_file("routes.yaml", watch=False, listeners=[((DeadLettered, Retried), on_event)])
    async with router, make_backend(url) as backend:
        if url.startswith("redis"):  # an entry of another program
            expected += 4
            await backend.append([new_message(KEY, bodies.pop())])
            client = redis.Redis.from_url(url)
            stream = next(name for name in client.scan_iter(_type="stream") if name.endswith(KEY.encode()))
            client.xadd(stream, {"card": SECRET, SECRET: "x", "code": NUMBER})
        for start in range(0, len(bodies), 100):
            await backend.append([new_message(KEY, body) for body in bodies[start : start + 100]])
        async with asyncio.timeout(60):
            await enough.wait()
            while not await backend.entries(FAILURES):
                await asyncio.sleep(0.05)
        found = [(FAILURES, entry.value.decode()) for entry in (await backend.entries(FAILURES)).values()]
        return found + await shown_by_http(router, backend)


async def go_on(backend: Backend) -> None:
    """Publish damaged payloads."""
    for number in count():
        await backend.append([new_message(KEY, damaged(Random(number)))])
        await asyncio.sleep(0.02)


async def shown_by_http(router: Router, backend: Backend) -> list[tuple[str, str]]:
    """Return the paths and the texts of all answers, pages and streams."""
    found: list[tuple[str, str]] = []
    ids: dict[str, list[str]] = {}
    for group in GROUPS:
        ids[group] = [each.id for each in await backend.dead_letters(KEY, group, limit=SHOWN)]
    async with serving(router.table, backend) as api:
        routes = make_app(api.site).routes
        publishing = asyncio.create_task(go_on(backend))
        stream = api.client.stream("GET", "/v1/tail", params={"pattern": KEY}, headers=bearer("admin"))
        async with stream as answer, asyncio.timeout(20):
            async for line in answer.aiter_lines():
                found.append(("/v1/tail", line))
                if len(found) > 50:
                    break
        publishing.cancel()
    transport = httpx.ASGITransport(router.http_app())
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers=bearer("admin")
    ) as client:
        paths = [re.sub(r":\w+}", "}", each.path) for each in routes if "GET" in (each.methods or ())]
        for path in paths:
            if path in ("/v1/tail", "/v1/events"):  # they have no end
                continue
            query = {} if "{" in path else {"key": KEY, "pattern": KEY, "group": "open"}
            for group in GROUPS if "{group}" in path else GROUPS[:1]:
                for id in ids[group] if "{id}" in path else [""]:
                    asked = path.format(key=KEY, group=group, id=id, number=1, name="none")
                    answer = await client.get(asked, params=query)
                    assert answer.status_code < 500, (asked, answer.text)
                    found.append((f"{asked} {answer.status_code}", answer.text))
    return found


@pytest.mark.parametrize(
    ("backend", "number"),
    [("sqlite", 100), ("redis", 100), pytest.param("sqlite", 1_000, marks=pytest.mark.heavy(20))],
)
def test_no_output_has_a_sensitive_value_of_damaged_payloads(
    number: int, shop: Path, run: Run, url: str, outputs: Callable[[], str]
) -> None:
    (shop / "routes.yaml").write_text(ROUTES.format(url=url, token=digest("admin")))
    (shop / "schemas" / "order.json").write_text(json.dumps(SCHEMA))
    (shop / "masked_handlers.py").write_text(HANDLERS)
    found = asyncio.run(fail(url, number))
    found.append(("log, traces", outputs()))

    async def stored(backend: Backend) -> list[tuple[str, str]]:
        entries = await backend.entries(FAILURES)
        letters = [each for group in GROUPS for each in await backend.dead_letters(KEY, group, limit=9_999)]
        assert (
            sum(
                "Traceback" in each.reason.traceback and "masked_handlers.py" in each.reason.traceback
                for each in letters
            )
            > number
        )
        texts = [entry.value.decode() for entry in entries.values()]
        return [("stored", text) for text in (*texts, *(repr(each.reason) for each in letters))]

    found += on_backend(stored, url)
    one = [each.id for each in on_backend(lambda backend: backend.dead_letters(KEY, "open", limit=10), url)]
    commands = [
        *(("dead", what, *json) for what in ("list", "groups", "try") for json in ((), ("--json",))),
        *(("dead", "show", f"{KEY}/open", id, *json) for id in one for json in ((), ("--json",))),
        *(("dead", "republish", f"{KEY}/open", id, "--draft") for id in one),
        ("dead", "replay", f"{KEY}/open", one[0], "--why", "a test"),
        *(("tap", KEY, "--start", "earliest", "--limit", "100", *json) for json in ((), ("--json",))),
        *((name,) for name in ("status", "history", "audit", "doctor", "routes")),
    ]
    for command in commands:
        result = run(*command)
        assert result.code in (0, 1), (command, result)
        found.append((" ".join(command), result.out + result.err))
    assert sum(text.count("(masked)") for _, text in found) > 10 * number
    assert [(where, text) for where, text in found if TRACES.search(text)] == []
