"""How the Redis provider connects: URLs, rights, timeouts, sockets."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import hiredis
import pytest

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends import make_backend
from abe_router.backends.redis import RedisBackend, protocol
from abe_router.backends.redis.address import Address, Sentinels
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import new_message
from abe_router.testing.redis_server import free_port
from tests.limits import HANG

from .deliveries import ack, as_dead, bodies, take
from .tls import certificate

KEY, GROUP = "orders.created", "billing"


@pytest.fixture
def user(redis_server, redis_client):
    """Return a function that makes a user with rules, and returns its URL; the password is `right`."""

    async def user(*rules):
        name = f"u{secrets.token_hex(4)}"
        await redis_client.execute_command("ACL", "SETUSER", name, "on", ">right", *rules)
        return redis_server.url.replace("//", f"//{name}:right@")

    return user


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "public"),
        [
            ("redis://", "redis://localhost:6379/0"),
            ("redis://queue.local:7000/3", "redis://queue.local:7000/3"),
            ("redis://me:s3cret@queue.local?db=4", "redis://queue.local:6379/4"),
            ("redis://:s3%40cret@[::1]:7000", "redis://[::1]:7000/0"),
            ("rediss://queue.local?ssl_ca_certs=/etc/ca.pem", "rediss://queue.local:6379/0"),
            ("unix://:s3cret@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
            ("redis+cluster://a,b:7001,[::1]:7002/?hash_tag=t", "redis+cluster://a:6379,b:7001,[::1]:7002/"),
            ("rediss+cluster://me:s3cret@a", "rediss+cluster://a:6379/"),
            (
                "redis+sentinel://me:s3%2Ccret@a,b:5000/main/2?sentinel_password=s3cret",
                "redis+sentinel://a:26379,b:5000/main/2",
            ),
            ("redis://queue?max_connections=50&decode_responses=true&protocol=3", "redis://queue:6379/0"),
        ],
    )
    def test_the_url_is_that_of_redis_py_and_is_shown_without_credentials(self, url, public):
        assert RedisBackend.from_url(url).url == public

    def test_credentials_are_decoded_and_not_in_the_repr(self):
        address = Address.parse("redis://m%65:s3%40cret@queue")
        assert (address.username, address.password) == ("me", "s3@cret")
        assert "s3@cret" not in repr(address)

    def test_sentinels_have_credentials_of_their_own(self):
        address = Address.parse(
            "rediss+sentinel://me:mine@a/main?sentinel_username=watcher&sentinel_password=theirs&replicas=1"
        )
        assert (address.username, address.password, address.replicas) == ("me", "mine", 1)
        assert address.sentinels == Sentinels("main", "watcher", "theirs")
        assert address.tls is not None
        assert "mine" not in repr(address)
        assert "theirs" not in repr(address)

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("redis://host:70000", "the port must be"),
            ("redis://host/queue", "the path must be the number of a database"),
            ("unix://", "the path of the socket is missing"),
            ("redis://host?socket_timeot=3", "unknown option `socket_timeot`; did you mean `socket_timeout`"),
            ("redis://host?socket_timeout=soon", "`socket_timeout` must be a number"),
            ("redis://host?socket_timeout=-1", "`socket_timeout` is out of range"),
            ("rediss://host?ssl_cert_reqs=maybe", "`ssl_cert_reqs` must be"),
            ("redis://host?ssl_ca_certs=/etc/ca.pem", "need `rediss://`"),
            ("redis+cluster://", "the hosts are missing, as in"),
            ("redis+cluster://a,b:70000", "the port must be"),
            ("redis+cluster://a/1", "a cluster has only database 0"),
            ("redis+cluster://a?slots=257", "`slots` must be a number up to 256"),
            ("redis+sentinel://a/main?slots=4", "`slots` is for a cluster"),
            ("redis+cluster://a?ssl_ca_certs=/etc/ca.pem", r"need `rediss\+cluster://`"),
            ("redis+sentinel://a,b", "the name of the primary is missing"),
            ("redis+sentinel://a/main?sentinel_username=me", "`sentinel_username` needs"),
            ("redis+cluster://a?sentinel_password=p", "unknown option `sentinel_password`"),
            ("redis://a?replicas=all", "`replicas` must be a number up to 10"),
            ("redis://me:63?CRET@host", "a `.` in the user name or password"),
        ],
    )
    def test_a_malformed_url_is_refused_with_the_reason(self, url, why):
        with pytest.raises(BackendError, match=f"malformed: .*{why}"):
            make_backend(url)

    def test_only_none_turns_the_check_of_the_hostname_off(self):
        checked = {
            verify: Address.parse(f"rediss://host?ssl_cert_reqs={verify}").tls.context().check_hostname
            for verify in ("required", "optional", "none")
        }
        assert checked == {"required": True, "optional": True, "none": False}

    @pytest.mark.parametrize(
        ("env", "url"),
        [
            ({}, "redis://localhost:6379/0"),
            ({"REDIS_URL": "redis://a:1/2", "REDIS_MAX_CONNECTIONS": "10"}, "redis://a:1/2"),
            ({"REDIS_URL": "redis://a:1/2", "REDIS_SSL": "True"}, "rediss://a:1/2"),
        ],
    )
    def test_the_environment_completes_the_url(self, env, url):
        assert RedisBackend.from_env(env).url == url


class TestConnection:
    async def test_a_wrong_password_is_not_in_the_error(self, user):
        with pytest.raises(BackendError, match="WRONGPASS") as caught:
            await RedisBackend.from_url((await user("~*", "+@all")).replace("right", "s3cret")).open()
        assert not isinstance(caught.value, BackendUnavailable)
        assert "s3cret" not in str(caught.value)

    async def test_the_error_names_the_right_that_is_missing(self, user, prefix):
        url = await user("~*", "+@all", "-xreadgroup")
        async with RedisBackend.from_url(url, prefix=prefix) as backend:
            handle = await backend.subscribe(KEY, GROUP)
            with pytest.raises(BackendError, match=r"NOPERM.*xreadgroup.*ACL"):
                await handle.fetch(1, 1.0)

    async def test_the_documented_rights_are_enough(self, user, prefix):
        async with RedisBackend.from_url(await user(*rights(prefix)), prefix=prefix) as backend:
            handle, everything = await backend.subscribe(KEY, GROUP), await backend.subscribe("#", GROUP)
            await backend.append([new_message(KEY, b"%d" % n) for n in range(4)])
            held = await take(handle, 4)
            outcomes = ACKED, as_dead(held[1]), Delayed(60.0), RELEASED
            assert not await handle.settle(list(zip(held, outcomes, strict=True)))
            await ack(everything, await take(everything, 4))
            (dead_letter,) = await backend.dead_letters(KEY, GROUP)
            assert await backend.replay(KEY, GROUP, [dead_letter.id]) == 1
            assert not await backend.purge(KEY, GROUP, [dead_letter.id])
            assert await backend.put("bucket", "name", b"value", ttl=10.0) > 0
            assert [entry.value for entry in (await backend.entries("bucket")).values()] == [b"value"]
            assert await backend.get("bucket", "name")
            assert await backend.delete("bucket", "name")
            assert (await backend.take_tokens("me", 10.0, 1)).granted == 1
            assert await backend.trim({}) == 2
            assert await backend.drop("#", GROUP)
            (status,) = await backend.status()
            assert (status.ready, status.delayed) == (2, 1)

    async def test_a_server_that_is_too_old_is_refused(self):
        async with answering({b"EVAL": b":0\r\n", b"CLIENT": b":7\r\n"}) as url:
            with pytest.raises(BackendError, match=r"too old: Redis 7\.0 or Valkey 7\.2 is needed"):
                await RedisBackend.from_url(url).open()

    async def test_a_silent_server_is_unavailable(self):
        async with answering({}) as url:
            with pytest.raises(BackendUnavailable, match="does not answer"):
                await RedisBackend.from_url(f"{url}?socket_connect_timeout=0.1").open()

    async def test_a_server_that_becomes_silent_is_unavailable_after_the_timeout(self):
        ready = {b"EVAL": b":1\r\n", b"CLIENT": b":7\r\n", b"EVALSHA": b""}
        async with answering(ready) as url:
            backend = RedisBackend.from_url(f"{url}?socket_timeout=0.2")
            with pytest.raises(BackendUnavailable, match=r"kept silent for 200ms"):
                await backend.append([new_message(KEY, b"1")])
            await backend.close()

    async def test_all_subscriptions_share_two_connections(self, prefix, redis_backend, redis_client):
        before = (await redis_client.info("clients"))["connected_clients"]
        handles = [await redis_backend.subscribe(f"{KEY}.n{n}", GROUP) for n in range(30)]
        fetching = [asyncio.create_task(handle.fetch(1, 2 * HANG)) for handle in handles]
        while (await redis_client.info("clients"))["blocked_clients"] == 0:
            await asyncio.sleep(0.01)
        assert (await redis_client.info("clients"))["connected_clients"] <= before + 1
        await redis_client.xadd(f"{prefix}{KEY}.n7", {"data": b"1"})
        async with asyncio.timeout(HANG):
            assert bodies(await fetching[7]) == [b"1"]
        for fetch in fetching:
            fetch.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)

    async def test_port_that_does_not_answer_over_tls_is_reported_as_such(self):
        clients = []
        async with await asyncio.start_server(
            lambda _, client: clients.append(client), "127.0.0.1"
        ) as silent:
            port = silent.sockets[0].getsockname()[1]
            url = f"rediss://127.0.0.1:{port}?socket_connect_timeout=0.1"
            with pytest.raises(BackendUnavailable, match="over TLS; does this port use TLS"):
                await RedisBackend.from_url(url).open()
            for client in clients:
                client.close()

    async def test_unix_sockets_and_tls_work(self, tls, redis_program, tmp_path):
        certificate(tmp_path)
        socket, port = tmp_path / "redis.sock", free_port()
        options = {"port": 0, "unixsocket": socket, "tls-port": port, "tls-cert-file": tmp_path / "cert.pem"}
        options |= {"tls-key-file": tmp_path / "key.pem", "tls-auth-clients": "no", "save": ""}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        process = await asyncio.create_subprocess_exec(redis_program, *arguments, stdout=subprocess.DEVNULL)
        try:
            while True:  # the file exists before the server listens
                with suppress(OSError):
                    _, writer = await asyncio.open_unix_connection(socket)
                    writer.close()
                    break
                await asyncio.sleep(0.01)
            trusted = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/cert.pem"
            for url in (f"unix://{socket}", trusted, f"rediss://localhost:{port}?ssl_cert_reqs=none"):
                async with RedisBackend.from_url(url) as backend:
                    await backend.append([new_message(KEY, b"1")])
            with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await RedisBackend.from_url(f"rediss://localhost:{port}").open()
        finally:
            process.kill()
            await process.wait()


def rights(prefix):
    """Return the rules of the documentation for a user, without its name and password."""
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text("utf-8")
    rules = page.partition("ACL SETUSER router on >PASSWORD ")[2].partition("```")[0]
    return rules.replace("shop.", prefix).split()


@asynccontextmanager
async def answering(replies):
    """Run a server that answers commands by their names, others with OK, and none without replies."""

    async def serve(reader, writer):
        commands = hiredis.Reader()
        while piece := await reader.read(65_536):
            commands.feed(piece)
            while replies and (command := commands.gets()) is not False:
                writer.write(replies.get(command[0], b"+OK\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_refusal_that_ends_with_a_full_stop_is_continued_without_it():
    refused = protocol.server_error("WRONGPASS invalid username-password pair or user is disabled.")
    assert str(refused).endswith("user is disabled; check the user name and password in the URL")


async def test_a_server_that_announces_a_huge_answer_is_left(monkeypatch):
    """Its bytes are counted while they come, and do not fill the memory."""
    monkeypatch.setattr(protocol, "MOST_BYTES", 4 * 1024 * 1024)
    sent = 0

    async def serve(reader, writer):
        nonlocal sent
        await reader.read(100)
        writer.write(b"$10000000000\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = RedisBackend.from_url(f"redis://127.0.0.1:{port}")
    async with asyncio.timeout(HANG):
        with pytest.raises(BackendUnavailable, match="an answer is larger than 4 MiB"):
            await backend.open()
    await backend.close()
    server.close()
    assert sent < 64 * 1024 * 1024
