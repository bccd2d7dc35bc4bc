"""Credential providers of the Redis provider: asked at each connect, and on live connections."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import types
from typing import ClassVar

import pytest
from redis.auth.token import SimpleToken
from redis.credentials import CredentialProvider, StreamingCredentialProvider

from abe_router.backends import make_backend
from abe_router.backends.redis import RedisBackend
from abe_router.errors import BackendError, BackendUnavailable
from tests.limits import HANG

from .deliveries import bodies, take

KEY, GROUP = "orders.created", "billing"


class Rotating(CredentialProvider):
    """Has the blocking method alone, as most providers do."""

    current = ("", "")
    threads: ClassVar[set[int]] = set()

    def get_credentials(self):
        self.threads.add(threading.get_ident())
        return self.current


class RotatingAsync(CredentialProvider):
    current = ("", "")

    async def get_credentials_async(self):
        await asyncio.sleep(0)
        return self.current


class Streaming(StreamingCredentialProvider):
    current = ("", "")
    made: ClassVar[list[Streaming]] = []

    def __init__(self):
        self.made.append(self)

    def get_credentials(self):
        return self.current

    def on_next(self, callback):
        self.next = callback

    def on_error(self, callback):
        self.error = callback

    def is_streaming(self):
        return True


class Failing(CredentialProvider):
    def get_credentials(self):
        raise OSError("token endpoint s3cret")


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """Make the classes importable by a name, each with fresh state."""
    fresh = types.ModuleType("acme_tokens")
    for kind in (Rotating, RotatingAsync, Streaming, Failing):
        setattr(fresh, kind.__name__, type(kind.__name__, (kind,), {"made": [], "threads": set()}))
    fresh.other = object
    monkeypatch.setitem(sys.modules, "acme_tokens", fresh)
    return fresh


@pytest.fixture
async def user(redis_client):
    """Yield a function that makes a user with a password."""
    made = []

    async def user(password):
        name = f"u{secrets.token_hex(4)}"
        await redis_client.execute_command("ACL", "SETUSER", name, "on", f">{password}", "~*", "+@all")
        made.append(name)
        return name

    yield user
    await redis_client.execute_command("ACL", "DELUSER", *made, "nobody")


async def change_password(client, name, old, new):
    """Change it as a rotation does, and end the connections of the user."""
    await client.execute_command("ACL", "SETUSER", name, f"<{old}", f">{new}")
    await client.execute_command("CLIENT", "KILL", "USER", name)


async def users(client, prefix):
    """Return the users of the connections of one backend."""
    clients = await client.client_list()
    return sorted(c["user"] for c in clients if c["name"] == prefix)


@pytest.mark.parametrize("kind", ["Rotating", "RotatingAsync"])
async def test_the_provider_is_asked_at_each_connect(kind, module, user, redis_server, redis_client, prefix):
    name = await user("one")
    provider = getattr(module, kind)
    provider.current = (name, "one")
    url = f"{redis_server.url}?credential_provider=acme_tokens:{kind}"
    async with RedisBackend.from_url(url, prefix=prefix) as backend:
        handle = await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
        assert bodies(await take(handle, 1)) == [b"1"]
        provider.current = (name, "two")
        await change_password(redis_client, name, "one", "two")
        async with asyncio.timeout(HANG):
            while True:
                try:
                    await backend.publish(KEY, 2)
                    break
                except BackendUnavailable:
                    await asyncio.sleep(0.01)
            fetched = []
            while not fetched:
                try:
                    fetched = await handle.fetch(1, 1.0)
                except BackendUnavailable:
                    await asyncio.sleep(0.01)
        assert bodies(fetched) == [b"2"]


async def test_a_blocking_provider_does_not_run_in_the_event_loop(module, user, redis_server):
    module.Rotating.current = (await user("one"), "one")
    async with RedisBackend.from_url(f"{redis_server.url}?credential_provider=acme_tokens:Rotating"):
        pass
    assert threading.get_ident() not in module.Rotating.threads
    assert module.Rotating.threads


async def test_a_refusal_is_an_error_at_first_and_an_outage_after_a_rotation(
    module, user, redis_server, redis_client
):
    name = await user("one")
    module.Rotating.current = (name, "wrong")
    url = f"{redis_server.url}?credential_provider=acme_tokens:Rotating"
    async with RedisBackend.from_url(redis_server.url) as plain:
        assert not await plain.get("bucket", "name")
    backend = RedisBackend.from_url(url)
    with pytest.raises(BackendError, match="WRONGPASS") as caught:
        await backend.open()
    assert not isinstance(caught.value, BackendUnavailable)
    module.Rotating.current = (name, "one")
    await backend.open()
    await change_password(redis_client, name, "one", "two")
    async with asyncio.timeout(HANG):
        while backend._node.connection.up:
            await asyncio.sleep(0.001)
    with pytest.raises(BackendUnavailable, match="WRONGPASS"):
        await backend.open()
    module.Rotating.current = (name, "two")
    await backend.open()
    await backend.close()


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_streamed_token_logs_live_connections_in_again(
    threaded, module, user, redis_server, redis_client, prefix
):
    first, second = await user("one"), await user("two")
    module.Streaming.current = (first, "one")
    url = f"{redis_server.url}?credential_provider=acme_tokens:Streaming&client_name={prefix}"
    async with RedisBackend.from_url(url, prefix=prefix) as backend:
        handle = await backend.subscribe(KEY, GROUP)
        fetching = asyncio.create_task(handle.fetch(1, 2 * HANG))
        while await users(redis_client, prefix) != [first, first]:
            await asyncio.sleep(0.01)
        connections = (backend._node.connection, backend._node._waiting)
        while not all(connection.client_id for connection in connections):
            await asyncio.sleep(0.01)
        ids = {connection.client_id for connection in connections}
        (provider,) = module.Streaming.made
        token = SimpleToken("two", -1, 0, {"oid": second})
        if threaded:
            await asyncio.to_thread(provider.next, token)
        else:
            await provider.next(token)
        await backend.publish(KEY, 1)
        assert bodies(await fetching) == [b"1"]
        async with asyncio.timeout(HANG):
            while await users(redis_client, prefix) != [second, second]:
                await asyncio.sleep(0.01)
        assert ids == {connection.client_id for connection in connections}


async def test_a_refused_token_ends_the_connection_which_then_asks_again(
    module, user, redis_server, redis_client, prefix, caplog
):
    module.Streaming.current = (await user("one"), "one")
    url = f"{redis_server.url}?credential_provider=acme_tokens:Streaming&client_name={prefix}"
    async with RedisBackend.from_url(url, prefix=prefix) as backend:
        (provider,) = module.Streaming.made
        before = backend._node.connection.client_id
        await provider.next(SimpleToken("wrong", -1, 0, {"oid": "nobody"}))
        async with asyncio.timeout(HANG):
            while backend._node.connection.up:
                await asyncio.sleep(0.001)
        await backend.open()
        assert backend._node.connection.client_id != before
    await provider.error(ValueError("s3cret"))
    assert "refused the new credentials" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("acme_tokens:Missing", "cannot be loaded: AttributeError"),
        ("acme_missing:Class", "cannot be loaded: ModuleNotFoundError"),
        ("acme_tokens:other", "is not a CredentialProvider"),
    ],
)
async def test_a_provider_that_cannot_be_loaded_is_an_error(redis_server, path, why):
    with pytest.raises(BackendError, match=why) as caught:
        await RedisBackend.from_url(f"{redis_server.url}?credential_provider={path}").open()
    assert not isinstance(caught.value, BackendUnavailable)


async def test_a_provider_that_fails_is_an_outage_and_its_text_is_not_shown(redis_server):
    url = f"{redis_server.url}?credential_provider=acme_tokens:Failing"
    with pytest.raises(BackendUnavailable, match="the credential provider failed: OSError") as caught:
        await RedisBackend.from_url(url).open()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host?credential_provider=acme", "must be like `package.module:Class`"),
        ("redis://:s3cret@host?credential_provider=a:B", "exclude each other"),
        ("redis://host?credential_provder=a:B", "did you mean `credential_provider`"),
    ],
)
def test_a_malformed_option_is_refused(url, why):
    with pytest.raises(BackendError, match=why):
        make_backend(url)


async def test_a_token_that_comes_during_the_login_is_used_after_it(
    module, user, redis_server, redis_client, prefix, monkeypatch
):
    first, second = await user("one"), await user("two")

    async def push_and_return_the_old_ones(self):
        await self.next(SimpleToken("two", -1, 0, {"oid": second}))
        return first, "one"

    monkeypatch.setattr(module.Streaming, "get_credentials_async", push_and_return_the_old_ones)
    url = f"{redis_server.url}?credential_provider=acme_tokens:Streaming&client_name={prefix}"
    async with RedisBackend.from_url(url, prefix=prefix), asyncio.timeout(HANG):
        while await users(redis_client, prefix) != [second]:
            await asyncio.sleep(0.001)
