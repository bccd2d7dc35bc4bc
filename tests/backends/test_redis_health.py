"""What `doctor` finds about a Redis server, on servers that are in that state."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import socket
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from abe_router.backend import ACKED
from abe_router.backends.redis import RedisBackend, health
from abe_router.backends.redis.address import Address, Tls
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.server import Server, check
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import new_message
from abe_router.testing import RedisServer
from abe_router.testing.redis_server import free_port
from tests.limits import HANG

KEY, GROUP = "orders.created", "billing"
HERE = Path(health.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "redis.md"


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a server with further options, not durable unless they say so."""
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with ExitStack() as stack:

        def start(*options):
            folder = tmp_path / f"redis{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return stack.enter_context(RedisServer(folder, options=options))

        yield start


@pytest.fixture
async def backend(redis_server, prefix):
    async with RedisBackend.from_url(redis_server.url, prefix=prefix) as backend:
        yield backend


async def results(url, *, prefix="", served=None):
    backend = RedisBackend.from_url(url, prefix=prefix)
    found = {}
    for result in await backend.check_health(served):
        found.setdefault(result.code, result)
    await backend.close()
    return found


async def weak(url, **rest):
    found = await results(url, **rest)
    return {code: result for code, result in found.items() if result.weakens}


async def test_a_durable_server_has_nothing_that_weakens_the_promise(redis_server, prefix):
    found = await results(redis_server.url, prefix=prefix)
    assert not await weak(redis_server.url, prefix=prefix)
    assert {code for code, result in found.items() if result.severity == "ok"} >= {
        "D303",
        "D310",
        "D312",
        "D320",
    }


async def test_a_check_writes_nothing(start):
    server = start()
    async with RedisBackend.from_url(server.url) as backend, Redis.from_url(server.url) as client:
        await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
        before = (await client.info("persistence"))["rdb_changes_since_last_save"]
        await results(server.url, served=[])
        assert (await client.info("persistence"))["rdb_changes_since_last_save"] == before


@pytest.mark.parametrize(
    ("options", "code", "severity"),
    [
        (["--save", ""], "D310", "error"),
        (["--save", "60 1"], "D311", "error"),
        (["--appendonly", "yes", "--appendfsync", "everysec"], "D312", "info"),
        (["--appendonly", "yes", "--appendfsync", "no"], "D312", "warning"),
        (["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"], "D320", "error"),
        (["--maxmemory-policy", "allkeys-lru"], "D320", "warning"),
        (["--maxmemory", "1gb", "--maxmemory-policy", "volatile-lru"], "D320", "ok"),
        (["--maxmemory", "100kb"], "D321", "warning"),
        (["--bind", "0.0.0.0", "--protected-mode", "no"], "D351", "warning"),
    ],
)
async def test_a_setting_that_weakens_the_promise_is_found(start, options, code, severity):
    found = await results(start(*options).url)
    assert str(found[code].severity) == severity
    assert found[code].hint or severity == "ok"


async def test_no_password_is_needed_where_the_port_is_closed_to_others(start):
    assert "D351" not in await results(start("--bind", "127.0.0.1", "--protected-mode", "no").url)
    assert "D351" not in await results(start("--bind", "0.0.0.0").url)


async def test_a_failed_snapshot_is_found(start, tmp_path):
    server = start("--save", "60 1", "--dbfilename", "sub.rdb")
    async with Redis.from_url(server.url) as client:
        (tmp_path / "redis0" / "sub.rdb").mkdir()
        await client.bgsave()
        while (await client.info("persistence"))["rdb_bgsave_in_progress"]:
            await asyncio.sleep(0.01)
    assert (await weak(server.url))["D313"].severity == "error"


async def test_a_failed_rewrite_is_found(start, tmp_path):
    server = start("--appendonly", "yes", "--rdb-key-save-delay", "1000000")
    async with Redis.from_url(server.url) as client:
        await client.mset({f"k{n}": n for n in range(100)})
        await client.bgrewriteaof()
        pid = server._process.pid
        children = await asyncio.to_thread(Path(f"/proc/{pid}/task/{pid}/children").read_text)
        for child in children.split():
            os.kill(int(child), signal.SIGKILL)
        while (await client.info("persistence"))["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.01)
    assert (await weak(server.url))["D313"].severity == "warning"


async def test_a_replica_and_a_primary_that_waits_for_no_replica_are_found(start):
    primary = start("--appendonly", "yes")
    host, port = primary.url.removeprefix("redis://").removesuffix("/0").split(":")
    replica = start("--appendonly", "yes", "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
    result = (await weak(replica.url))["D330"]
    assert result.hint == f"give the URL of its primary: {host}:{port}"
    async with asyncio.timeout(HANG):
        while "D331" not in await weak(primary.url):
            await asyncio.sleep(0.05)
    async with Redis.from_url(primary.url) as client:
        await client.config_set("min-replicas-to-write", 1)
    assert "D331" not in await weak(primary.url)


async def test_a_cluster_without_slots_is_unavailable(start):
    url = start("--cluster-enabled", "yes", "--cluster-port", str(free_port())).url
    with pytest.raises(BackendUnavailable, match=r"no node of redis\+cluster://.* serves slot"):
        await results(url)


async def test_a_sentinel_is_refused(redis_program, tmp_path):
    conf = tmp_path / "sentinel.conf"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf.write_text(f"port {port}\ndir {tmp_path}\n")
    process = await asyncio.create_subprocess_exec(
        redis_program, conf, "--sentinel", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(HANG):
            while True:
                with pytest.raises(BackendError) as caught:
                    await RedisBackend.from_url(f"redis://127.0.0.1:{port}").open()
                if not isinstance(caught.value, BackendUnavailable):
                    break
        assert "is a Sentinel" in str(caught.value)
    finally:
        process.kill()
        await process.wait()


async def test_absent_server_raises_backend_unavailable(start):
    server = start()
    server.kill()
    with pytest.raises(BackendUnavailable):
        await results(server.url)


class TestRights:
    async def test_missing_commands_are_named_with_the_rule_that_allows_them(
        self, redis_server, redis_client, prefix
    ):
        allowed = [rule for rule in health.rules(Names(prefix)) if rule not in ("+xclaim", "+xgroup|destroy")]
        await redis_client.execute_command("ACL", "SETUSER", "few", "reset", "on", ">right", *allowed)
        result = (await weak(redis_server.url.replace("//", "//few:right@"), prefix=prefix))["D303"]
        assert result.message == "this user may not run XCLAIM, XGROUP|DESTROY"
        assert result.hint == f"ACL SETUSER USER {' '.join(health.rules(Names(prefix)))}"

    async def test_the_least_user_lacks_no_right_and_cannot_see_all(self, redis_server, prefix):
        found = await results(redis_server.url.replace("//", "//least:right@"), prefix=prefix)
        assert found["D303"].severity == "ok"
        assert found["D302"].message == "this user may not run INFO"

    async def test_missing_key_patterns_are_named_instead_of_every_command(
        self, redis_server, redis_client, prefix
    ):
        await redis_client.execute_command(
            "ACL", "SETUSER", "apart", "reset", "on", ">right", f"~{prefix}*", "+@all"
        )
        result = (await weak(redis_server.url.replace("//", "//apart:right@"), prefix=prefix))["D303"]
        assert result.message == f"this user may not touch the keys ~abe-router:{{{prefix}*"

    async def test_a_renamed_command_counts_as_missing(self, start):
        found = await weak(start("--rename-command", "XCLAIM", "HIDDEN").url)
        assert found["D303"].message == "this user may not run XCLAIM"

    async def test_a_user_without_scripts_gets_the_rules_to_allow(self, redis_server, redis_client, prefix):
        await redis_client.execute_command("ACL", "SETUSER", "none", "reset", "on", ">right", "~*", "+ping")
        result = (await weak(redis_server.url.replace("//", "//none:right@"), prefix=prefix))["D301"]
        assert result.hint == f"ACL SETUSER USER {' '.join(health.rules(Names(prefix)))}"
        assert "right" not in result.message

    def test_the_list_of_rights_is_what_the_code_sends(self):
        sent = set()
        for path in HERE.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(attr="send"), args=[ast.Constant(str(name)), *rest]):
                        sub = rest[0].value if rest and isinstance(rest[0], ast.Constant) else ""
                        sent.add(f"{name}|{sub}" if name in health._CONTAINERS else name)
        asked_by_doctor = {"CLUSTER|INFO", "CONFIG", "INFO", "TIME", "XINFO|CONSUMERS", "XLEN"}
        assert sent | {"EVALSHA", "CLUSTER|SLOTS", "WAIT"} == {
            *health._SENT,
            *health._ON_CLUSTER,
            *health._FOR_REPLICAS,
            *asked_by_doctor,
        }
        in_lua = {
            word
            for path in HERE.glob("lua/*.lua")
            for word in re.findall(r"p?call\('([A-Z]+)'", path.read_text())
        }
        assert in_lua <= {name.partition("|")[0] for name in health.commands(Names(""))}

    def test_the_documented_rules_are_these(self):
        shown = PAGE.read_text("utf-8").partition("ACL SETUSER router on >PASSWORD ")[2].partition("```")[0]
        assert shown.split() == health.rules(Names("shop."))


class TestContent:
    async def test_messages_deleted_before_a_group_got_them_are_counted(
        self, backend, redis_server, redis_client, prefix
    ):
        handle = await backend.subscribe(KEY, GROUP)
        for n in range(10):
            await backend.publish(KEY, n)
        assert len(await handle.fetch(2, 1.0)) == 2
        assert "D370" not in await weak(redis_server.url, prefix=prefix)
        await redis_client.xtrim(f"{prefix}{KEY}", maxlen=5, approximate=False)
        result = (await weak(redis_server.url, prefix=prefix))["D370"]
        assert "`orders.created/billing` lost messages of `orders.created`" in result.message
        assert "3 that it was never given and 2 that were in flight" in result.message

    async def test_single_deletions_and_a_deleted_stream_are_found(
        self, backend, redis_server, redis_client, prefix
    ):
        handle = await backend.subscribe("orders.#", GROUP)
        for n in range(4):
            await backend.publish(KEY, n)
        while not await handle.fetch(1, 1.0):
            pass
        entries = await redis_client.xrange(f"{prefix}{KEY}")
        await redis_client.xdel(f"{prefix}{KEY}", entries[2][0])
        assert "some that it was never given" in (await weak(redis_server.url, prefix=prefix))["D370"].message
        await redis_client.xtrim(f"{prefix}{KEY}", maxlen=0, approximate=False)
        found = (await weak(redis_server.url, prefix=prefix))["D370"].message
        assert "3 that it was never given and 1 that were in flight" in found

    async def test_ids_from_the_future_are_found(self, backend, redis_server, redis_client, prefix):
        await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
        assert "D371" not in await weak(redis_server.url, prefix=prefix)
        await redis_client.xadd(f"{prefix}{KEY}", {"data": "1"}, id="9999999999999-1")
        result = (await weak(redis_server.url, prefix=prefix))["D371"]
        assert f"the last id of `{KEY}` is from the future: 9999999999999-1, which is 2286" in result.message
        await redis_client.xadd(f"{prefix}{KEY}", {"data": "1"}, id=f"{2**64 - 1}-{2**64 - 1}")
        assert "9999-12-31" in (await weak(redis_server.url, prefix=prefix))["D371"].message

    async def test_a_position_that_another_client_set_is_found(
        self, redis_backend, redis_server, redis_client, prefix
    ):
        stream = f"{prefix}{KEY}"
        handle = await redis_backend.subscribe(KEY, GROUP)
        await redis_backend.append([new_message(KEY, b"1")])
        (first,) = await handle.fetch(1, HANG)
        await redis_backend._node.gaps.look()
        assert "D372" not in await weak(redis_server.url, prefix=prefix)
        await redis_backend.append([new_message(KEY, b"2"), new_message(KEY, b"3")])
        await redis_client.xgroup_setid(stream, GROUP, "$")
        await redis_backend._node.gaps.look()
        ((last, _),) = await redis_client.xrevrange(stream, count=1)
        result = (await weak(redis_server.url, prefix=prefix))["D372"]
        assert result.message == (
            f"another client set the position of `{KEY}/{GROUP}` on `{KEY}` "
            f"from {first.receipt.decode()} to {last.decode()}"
        )

    async def test_leases_that_another_client_ended_are_found(
        self, redis_backend, redis_server, redis_client, prefix
    ):
        stream = f"{prefix}{KEY}"
        handle = await redis_backend.subscribe(KEY, GROUP)
        await redis_backend.append([new_message(KEY, b"1"), new_message(KEY, b"2")])
        held = [*await handle.fetch(2, HANG)]
        for consumer in await redis_client.xinfo_consumers(stream, GROUP):
            await redis_client.xgroup_delconsumer(stream, GROUP, consumer["name"])
        await handle.settle([(each, ACKED) for each in held])
        await redis_backend.status()  # the question about the refused ones was answered before
        await redis_client.hset(f"abe-router:{{{prefix}}}:changes", "no change of ours", "x")
        result = (await results(redis_server.url, prefix=prefix))["D372"]
        assert (
            f"that workers of `{KEY}/{GROUP}` held were not pending any more: {len(held)}" in result.message
        )

    async def test_our_own_trimming_is_not_reported(self, backend, redis_server, prefix):
        handle = await backend.subscribe(KEY, GROUP)
        for n in range(10):
            await backend.publish(KEY, n)
        taken = await handle.fetch(6, 1.0)
        assert not await handle.settle([(delivery, ACKED) for delivery in taken])
        assert await backend.trim({}) == 6
        await backend.subscribe(KEY, "late")
        assert "D370" not in await weak(redis_server.url, prefix=prefix)

    async def test_orphaned_subscriptions_and_unread_keys_are_found(self, backend, redis_server, prefix):
        await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
        await backend.publish("orders.lost", 1)
        found = await results(redis_server.url, prefix=prefix, served=[(KEY, "audit")])
        assert found["D110"].message == "`orders.created/billing` holds 1 message and is not in the file"
        assert "`orders.lost` 1" in found["D111"].message
        assert "D110" not in await weak(redis_server.url, prefix=prefix, served=[(KEY, GROUP)])


@asynccontextmanager
async def slow(url, seconds):
    """Run a proxy for the server of a URL that delays each reply by so much; yield its URL."""
    host, port = url.removeprefix("redis://").removesuffix("/0").split(":")

    async def carry(reader, writer, late):
        while piece := await reader.read(65_536):
            await asyncio.sleep(late)
            writer.write(piece)
        writer.close()

    ended = asyncio.Event()

    async def connected(reader, writer):
        back, forth = await asyncio.open_connection(host, port)
        await asyncio.gather(carry(reader, forth, 0), carry(back, writer, seconds))
        ended.set()

    async with await asyncio.start_server(connected, "127.0.0.1") as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await ended.wait()


async def test_a_slow_connection_is_found(redis_server, prefix):
    async with slow(redis_server.url, 0.12) as url:
        assert "a round trip takes 1" in (await weak(url, prefix=prefix))["D112"].message


def of(address=None, *, info=None, config=None, ahead=0.0):
    """Return the codes of the warnings about a server that says this of itself."""
    found = check(Server(address or Address(), info or {"redis_version": "8.10.1"}, config, ahead, 0.001))
    return {result.code for result in found if result.weakens} - {"D311"}


def test_a_remote_server_needs_tls_and_a_password():
    assert of() == of(Address(host="127.0.0.1")) == of(Address(path="/run/redis.sock")) == set()
    assert of(Address(host="queue.internal", password="p")) == {"D350"}
    assert of(Address(host="queue.internal")) == {"D350", "D351"}
    assert of(Address(host="queue.internal", password="p", tls=Tls())) == set()
    assert of(Address(host="queue.internal", password="p", tls=Tls(cert_reqs="none"))) == {"D350"}
    assert of(Address(host="queue.internal", password="p", tls=Tls(check_hostname=False))) == {"D350"}


@pytest.mark.parametrize("ahead", [-3600.0, 3.0])
def test_a_difference_of_clocks_is_found(ahead):
    assert of(ahead=ahead) == {"D360"}
    assert of(ahead=ahead / 10_000) == set()


def test_a_failed_write_is_found():
    fields = {"redis_version": "8.10.1", "aof_enabled": "1", "aof_last_write_status": "err"}
    assert of(info=fields) == {"D313"}


@pytest.mark.parametrize(
    ("fields", "name", "link"),
    [
        ({"redis_version": "8.10.1"}, "Redis 8.10.1", "github.com/redis/redis"),
        (
            {"redis_version": "7.2.4", "valkey_version": "8.1.4"},
            "Valkey 8.1.4",
            "github.com/valkey-io/valkey",
        ),
    ],
)
def test_the_version_comes_with_a_link_to_its_advisories(fields, name, link):
    (result,) = [r for r in check(Server(Address(), fields, None, 0.0, 0.001)) if r.code == "D340"]
    assert result.message == f"the server is {name}"
    assert link in result.hint
