"""Renewals in a thread, over a connection of their own, while the event loop is blocked."""

from __future__ import annotations

import os
import sys
import threading
import types
from typing import ClassVar

import pytest
from redis import Redis
from redis.credentials import CredentialProvider

from abe_router.backends.redis import RedisBackend, blocking_connection
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.testing import RedisServer
from abe_router.testing.redis_server import free_port
from tests.limits import HANG

from .deliveries import take
from .tls import certificate

KEY, GROUP, LEASE = "orders.created", "billing", 60.0
AGE = 30_000


class Provider(CredentialProvider):
    """Has the blocking method alone, as most providers do."""

    current = ("app", "s3cret")
    threads: ClassVar[set[int]] = set()

    def get_credentials(self):
        self.threads.add(threading.get_ident())
        return self.current


class AsyncProvider(CredentialProvider):
    """Is asked in an event loop."""

    async def get_credentials_async(self):
        return "app", "s3cret"


@pytest.fixture(scope="module")
def server(no_tls, tmp_path_factory):
    """Yield a server, its TLS port if it has TLS, and its certificate; the user `app` has a password."""
    folder, port = tmp_path_factory.mktemp("renewal"), free_port()
    options = []
    if not no_tls:
        options += ["--tls-port", str(port), "--tls-auth-clients", "no", *certificate(folder)]
    options += [
        "--unixsocket",
        str(folder / "redis.sock"),
        "--user",
        "app",
        "on",
        ">s3cret",
        "~*",
        "&*",
        "+@all",
    ]
    with RedisServer(folder, durable=True, options=options) as running:
        yield running, port, folder


@pytest.fixture(autouse=True)
def providers(monkeypatch):
    module = types.ModuleType("acme_renewal_tokens")
    module.Provider, module.AsyncProvider = Provider, AsyncProvider
    monkeypatch.setitem(sys.modules, "acme_renewal_tokens", module)


def renew(handle, deliveries):
    """Renew in a thread while the event loop is blocked; raise what that raises."""
    errors = []

    def run():
        try:
            handle.renew(deliveries)
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG)
    assert not thread.is_alive(), "the renewal waits for the event loop"
    if errors:
        raise errors[0]


def pending(client, stream):
    """Return the one pending entry of a stream."""
    (entry,) = client.xpending_range(stream, GROUP, "-", "+", 1)
    return entry


def age(client, stream, entry):
    """Make an entry look as if its lease was last renewed AGE milliseconds ago."""
    consumer = pending(client, stream)["consumer"]
    client.xclaim(stream, GROUP, consumer, 0, [entry], idle=AGE, retrycount=1, justid=True)


async def held(backend):
    handle = await backend.subscribe(KEY, GROUP, lease=LEASE)
    await backend.publish(KEY, 1)
    return handle, await take(handle, 1)


@pytest.mark.parametrize("kind", ["unix", "tls", "password", "Provider", "AsyncProvider"])
async def test_renewal_connects_as_the_event_loop_does(server, kind, request):
    if kind == "tls":
        request.getfixturevalue("tls")
    running, port, folder = server
    plain = running.url.replace("//", "//app:s3cret@")
    provider = f"{running.url}?credential_provider=acme_renewal_tokens:{kind}"
    url = {
        "unix": f"unix://{folder}/redis.sock",
        "tls": f"rediss://app:s3cret@localhost:{port}?ssl_ca_certs={folder}/cert.pem",
        "password": plain,
    }.get(kind, provider)
    async with RedisBackend.from_url(url, prefix=f"{kind}.") as backend:
        handle, deliveries = await held(backend)
        with Redis.from_url(running.url) as client:
            age(client, f"{kind}.{KEY}", deliveries[0].receipt)
            renew(handle, deliveries)
            assert pending(client, f"{kind}.{KEY}")["time_since_delivered"] < AGE
        assert not await handle.extend(deliveries)
        await handle.close()
    if kind == "Provider":
        assert threading.get_ident() not in Provider.threads


async def test_renewal_raises_while_the_server_is_away_and_works_after_that(tmp_path):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path, durable=True) as running:
        async with RedisBackend.from_url(running.url) as backend:
            handle, deliveries = await held(backend)
            renew(handle, deliveries)
            running.kill()
            for _ in range(2):
                with pytest.raises(BackendUnavailable, match="cannot be reached in a thread"):
                    renew(handle, deliveries)
            running.start()
            renew(handle, deliveries)


async def test_renewal_after_a_long_idle_time_uses_a_new_connection(server, monkeypatch):
    running, _, _ = server
    monkeypatch.setattr(blocking_connection, "_LONGEST_IDLE", 0.0)
    async with RedisBackend.from_url(running.url, prefix="idle.") as backend:
        handle, deliveries = await held(backend)
        renew(handle, deliveries)
        with Redis.from_url(running.url) as client:
            client.client_kill_filter(skipme=True, _type="normal")
        renew(handle, deliveries)


async def test_renewal_of_a_closed_backend_is_refused(server):
    running, _, _ = server
    backend = RedisBackend.from_url(running.url, prefix="closed.")
    handle, deliveries = await held(backend)
    renew(handle, deliveries)
    await backend.close()
    with pytest.raises(BackendError, match="the backend is closed"):
        renew(handle, deliveries)
