"""Redis Sentinel: the whole contract on a primary with a replica, and three Sentinels."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress

import pytest

from abe_router.backends import make_backend
from abe_router.backends.redis import RedisBackend
from abe_router.conformance import BackendConformance
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.testing import RedisServer
from chaos.redis_servers import DOWN_AFTER, RedisSentinels, call, host_and_port, until
from tests.limits import HANG

from .redis_load import Load
from .test_model import run
from .world import RedisWorld

pytestmark = pytest.mark.heavy(65)


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisSentinels(tmp_path_factory.mktemp("sentinels"), auth="watch") as sentinels:
        yield sentinels


class TestRedisSentinel(BackendConformance):
    has_short_form = True
    lease, pause, backlog, entries = 0.1, 0.02, 4000, 2500

    @pytest.fixture(autouse=True)
    def _sentinels(self, sentinels):
        self.sentinels = sentinels
        self.primary = sentinels.primary()
        # Other processes, and the proxy that loses replies, use the primary itself.
        self.url = self.primary.url

    def make_backend(self, prefix):
        return make_backend(f"{self.sentinels.url}?sentinel_password=watch", prefix=prefix)

    def stop_server(self):
        self.sentinels.wait()
        self.set_down_after(3_600_000)  # no failover while a test looks at what is without a server
        self.primary.kill()

    def start_server(self):
        self.set_down_after(DOWN_AFTER)
        until(lambda: self.sentinels.primary() is not self.primary)
        self.primary.start()
        self.sentinels.wait()

    def set_down_after(self, milliseconds):
        for port in self.sentinels.ports:
            self.sentinels.ask(port, "SENTINEL SET", "main", "down-after-milliseconds", milliseconds)


def test_sentinel_agrees_with_the_model(sentinels):
    run(lambda: RedisWorld(f"{sentinels.url}?sentinel_password=watch"), 8)


async def test_messages_that_a_replica_confirmed_outlive_the_primary(sentinels):
    async with Load(f"{sentinels.url}?sentinel_password=watch&replicas=1", "dies.") as load:
        await load.more()
        await asyncio.to_thread(sentinels.wait, 1_000_000)
        primary = sentinels.primary()
        primary.kill()
        await asyncio.to_thread(until, lambda: sentinels.primary() is not primary)
        primary.start()  # it takes writes as a primary until the Sentinels have made it a replica
        await load.more()
        await asyncio.to_thread(sentinels.wait, 1_000_000)
    assert load.outages
    assert not load.lost


def certificates(folder):
    """Make an authority of our own, and a certificate by it for this machine."""
    for name, signed, names in (
        ("ca", (), ()),
        ("cert", ("-CA", "ca.pem", "-CAkey", "ca.key"), ("-addext", "subjectAltName=IP:127.0.0.1")),
    ):
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
        files = ["-subj", f"/CN={name}", "-keyout", "key.pem" if signed else "ca.key", "-out", f"{name}.pem"]
        subprocess.run(
            [*command.split(), *files, *signed, *names], cwd=folder, check=True, capture_output=True
        )


async def test_servers_and_sentinels_are_reached_over_tls_each_with_its_password(tls, tmp_path):
    certificates(tmp_path)
    user = ("--user", "router", "on", ">right", "~*", "&*", "+@all")
    with RedisSentinels(tmp_path, options=user, auth="watch", tls=tmp_path) as sentinels:
        trust = f"ssl_ca_certs={tmp_path}/ca.pem"
        url = f"{sentinels.url}?{trust}&sentinel_password=watch".replace("//", "//router:right@", 1)
        async with RedisBackend.from_url(url) as backend:
            await backend.publish("orders.created", 1)
            primary = sentinels.primary()
            assert "user=router" in call(primary, "CLIENT", "LIST")
            assert {each.code for each in await backend.check_health() if each.severity == "error"} == set()
            await asyncio.to_thread(sentinels.wait)
            primary.kill()
            await asyncio.to_thread(until, lambda: sentinels.primary() is not primary)
            await asyncio.to_thread(until, lambda: call(sentinels.primary(), "ROLE")[0] == "master")
            async with asyncio.timeout(HANG):
                while True:
                    with suppress(BackendUnavailable):
                        await backend.publish("orders.created", 2)
                        break
            assert call(sentinels.primary(), "XLEN", "orders.created") >= 2
        for wrong, why in (
            (url.replace(trust, "socket_timeout=5"), "CERTIFICATE_VERIFY_FAILED"),
            (url.replace("=watch", "=right"), "WRONGPASS.*asked at"),
            (url.replace(":right@", ":watch@"), "WRONGPASS"),
            (url.replace(f"{trust}&", "").replace("rediss", "redis"), "two must agree"),
        ):
            with pytest.raises(BackendError, match=why):
                await RedisBackend.from_url(wrong).open()


async def test_a_primary_that_only_one_sentinel_names_is_not_used(sentinels, tmp_path):
    """One Sentinel of the URL watches another server, as one does that was cut off during a failover."""
    with RedisSentinels(tmp_path, sentinels=1, auth="watch") as other:
        url = f"redis+sentinel://127.0.0.1:{other.ports[0]},127.0.0.1:{sentinels.ports[0]}/main"
        async with RedisBackend.from_url(f"{url}?sentinel_password=watch", prefix="views.") as backend:
            await backend.publish("orders.created", 1)
        assert call(sentinels.primary(), "EXISTS", "views.orders.created")
        assert not call(other.primary(), "EXISTS", "views.orders.created")


async def test_sentinels_that_are_not_in_the_url_are_learned(sentinels, refusing_port):
    url = f"redis+sentinel://127.0.0.1:{refusing_port},127.0.0.1:{sentinels.ports[0]}/main?sentinel_password=watch"
    async with RedisBackend.from_url(url, prefix="learned.") as backend:
        await backend.publish("orders.created", 1)
        sentinels.kill(sentinels.ports[0])
        backend._node.connection.reset("a test")
        await backend.publish("orders.created", 2)
    await asyncio.to_thread(sentinels.restart, sentinels.ports[0])


async def test_doctor_knows_what_sentinels_say(sentinels, refusing_port, tmp_path):
    async def results(url):
        found = await RedisBackend.from_url(f"{url}?sentinel_password=watch").check_health()
        return {result.severity: result.message for result in found if result.code == "D334"}

    assert await results(sentinels.url) == {"ok": "3 Sentinels agree on the primary"}
    with RedisSentinels(tmp_path, sentinels=1, auth="watch") as other:
        one = f"127.0.0.1:{other.ports[0]}"
        url = sentinels.url.replace("//", f"//{one},127.0.0.1:{refusing_port},")
        messages = await results(url)
    assert list(messages) == ["warning"]
    assert "Sentinels cannot be reached: 127.0.0.1:" in messages["warning"]


async def test_a_url_that_does_not_fit_the_servers_is_refused_with_the_reason(sentinels):
    primary = f"127.0.0.1:{host_and_port(sentinels.primary())[1]}"
    for url, why in (
        (sentinels.url.replace("/main", "/other?sentinel_password=watch"), "no primary called `other`"),
        (f"{sentinels.url}?sentinel_password=wrong", "WRONGPASS.*asked at 127.0.0.1"),
        (f"redis+sentinel://{primary}/main", f"{primary} is no Sentinel"),
        (f"redis+cluster://{primary}/", f"{primary} is no cluster node"),
    ):
        with pytest.raises(BackendError, match=why):
            await RedisBackend.from_url(url).open()
