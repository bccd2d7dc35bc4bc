"""Log lines of a handler carry its route, message, attempt and trace."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from abe_router import LogContext
from abe_router.messages.message import new_message
from abe_router.observe.events import Handled
from abe_router.observe.logs import JSONFormatter, TextFormatter
from abe_router.routing.policies import Batch

from .conftest import make_route

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}

log = logging.getLogger("shop.billing")


class Lines(logging.Handler):
    """Keeps the records it gets, as a handler of a program with `LogContext` does."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(LogContext())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self) -> list[tuple[object, ...]]:
        names = ("message", "route", "message_id", "key", "attempt", "trace_id", "messages")
        return [tuple({**vars(r), "message": r.getMessage()}[name] for name in names) for r in self.records]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


async def send(running, *ids: str, headers=HEADERS, key="orders.created", body=b"1") -> None:
    await running.backend.append([new_message(key, body, headers=headers, id=id) for id in ids])


async def charge(payload):
    log.info("async")


def charge_in_thread(payload):
    log.info("thread")


@pytest.mark.parametrize("function", [charge, charge_in_thread])
async def test_lines_of_a_handler_name_its_message(running, lines, function):
    await running.route(make_route(function))
    await send(running, "a", "b")
    await running.log.wait_for(Handled, 2)
    said = [line[1:] for line in lines.said() if line[0] in ("async", "thread")]
    assert said == [("orders.created/billing", id, "orders.created", 1, TRACE, 1) for id in ("a", "b")]


async def test_each_attempt_has_its_number(running, lines):
    def fail_twice(payload, message):
        log.info("try")
        if message.attempt < 3:
            raise ValueError

    await running.route(make_route(fail_twice))
    await send(running, "a", headers={})
    await running.log.wait_for(Handled)
    assert [(line[2], line[4], line[5]) for line in lines.said() if line[0] == "try"] == [
        ("a", 1, ""),
        ("a", 2, ""),
        ("a", 3, ""),
    ]


async def test_lines_of_a_batch_name_the_first_message_and_the_number(running, lines):
    def charge_all(payloads):
        log.info("batch")

    await running.route(make_route(charge_all, batch=Batch(3, 5.0)))
    await send(running, "a", "b", "c")
    await running.log.wait_for(Handled, 3)
    (said,) = (line for line in lines.said() if line[0] == "batch")
    assert said[1:] == ("orders.created/billing", "a", "orders.created", 1, TRACE, 3)


async def test_lines_of_an_ordered_route_name_their_message(running, lines):
    await running.route(make_route(charge, order_by="/customer"))
    await send(running, "a", "b", body=b'{"customer": 1}')
    await running.log.wait_for(Handled, 2)
    assert [line[2] for line in lines.said() if line[0] == "async"] == ["a", "b"]


async def test_task_that_outlives_its_handler_keeps_its_message(running, lines):
    later = asyncio.Event()
    tasks = []

    async def leave_a_task(payload, message):
        async def work():
            await later.wait()
            log.info("later")

        if message.id == "a":
            tasks.append(asyncio.create_task(work()))
        else:
            later.set()
            await tasks[0]

    await running.route(make_route(leave_a_task, concurrency=1))
    await send(running, "a", "b")
    await running.log.wait_for(Handled, 2)
    assert [line[2] for line in lines.said() if line[0] == "later"] == ["a"]


async def test_lines_outside_of_handlers_have_empty_attributes(running, lines):
    await running.route(make_route(charge))
    await send(running, "a")
    await running.log.wait_for(Handled)
    log.info("outside")
    assert lines.said()[-1] == ("outside", "", "", "", 0, "", 0)
    assert not [
        line for line, r in zip(lines.said(), lines.records, strict=True) if line[2] and r.name != log.name
    ]


async def test_attributes_that_a_program_gives_stay(running, lines):
    async def with_extra(payload):
        log.info("extra", extra={"key": "mine"})

    await running.route(make_route(with_extra))
    await send(running, "a")
    await running.log.wait_for(Handled)
    (said,) = (line for line in lines.said() if line[0] == "extra")
    assert said[2:4] == ("a", "mine")


async def test_both_formats_show_the_context(running, lines):
    await running.route(make_route(charge))
    await send(running, "a\x1b")
    await running.log.wait_for(Handled)
    (record,) = (r for r in lines.records if r.name == log.name)
    line = json.loads(JSONFormatter().format(record))
    assert {name: line[name] for name in ("event", "logger", "route", "message_id", "key", "attempt")} == {
        "event": "log",
        "logger": "shop.billing",
        "route": "orders.created/billing",
        "message_id": "a\x1b",
        "key": "orders.created",
        "attempt": 1,
    }
    assert line["trace_id"] == TRACE
    assert "messages" not in line
    said = TextFormatter().format(record)
    assert said[9:] == (
        "info     orders.created/billing   shop.billing: async"
        rf" [message_id=a\x1b key=orders.created attempt=1 trace_id={TRACE}]"
    )
