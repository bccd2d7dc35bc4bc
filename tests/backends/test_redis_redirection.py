"""Commands that a server refuses are sent again, and those without an answer are not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import hiredis
import pytest

from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.address import Place
from abe_router.backends.redis.protocol import ServerNotReady
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message
from abe_router.testing import RedisServer
from tests.limits import HANG

#: A message that is large enough to go as a command of its own, `XADD`.
MESSAGE = new_message("orders.created", b'"' + b"x" * 3000 + b'"')
READY = {b"CLIENT": b":7\r\n", b"EVAL": b":1\r\n", b"EVALSHA": b":0\r\n"}
ADDED = b"$3\r\n1-0\r\n"


class Server:
    """Answers each XADD with the next of some replies, the last one again and again; None is a hang-up."""

    def __init__(self, *replies):
        self._replies = list(replies)
        self.received = []
        self.connections = 0
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._tasks)

    def answer(self, command):
        """Return the reply to a command, None to hang up."""
        if command[0] != b"XADD":
            return READY.get(command[0], b"+OK\r\n")
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def url(self, options=""):
        return f"redis://127.0.0.1:{self.port}?hash_tag=t{options}"

    def count(self, name):
        return self.received.count(name)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        commands = hiredis.Reader()
        with suppress(ConnectionError):  # the client may reset the connection
            while piece := await reader.read(65_536):
                commands.feed(piece)
                while (command := commands.gets()) is not False:
                    self.received.append(command[0])
                    reply = self.answer(command)
                    if reply is None:
                        writer.close()
                        return
                    writer.write(reply)
        writer.close()


class Sentinel(Server):
    """Names a server as the primary; None is a Sentinel that hangs up."""

    def __init__(self, primary, epoch=0, *, down=False):
        super().__init__(ADDED)
        self.primary, self.epoch, self.down = primary, epoch, down

    def answer(self, command):
        if command[0] != b"SENTINEL":
            return super().answer(command)
        if self.primary is None:
            return None
        place = (b"127.0.0.1", b"%d" % self.primary.port)
        about = {b"ip": place[0], b"port": place[1], b"flags": b"master,s_down" if self.down else b"master"}
        about |= {b"config-epoch": b"%d" % self.epoch, b"down-after-milliseconds": b"1000"}
        return {
            b"GET-MASTER-ADDR-BY-NAME": packed(*place),
            b"MASTER": packed(*(word for pair in about.items() for word in pair)),
            b"SENTINELS": b"*0\r\n",
        }[command[1]]


def packed(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@asynccontextmanager
async def watched(*sentinels):
    """Run Sentinels; yield a backend."""
    async with AsyncExitStack() as stack:
        for sentinel in sentinels:
            await stack.enter_async_context(sentinel)
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        yield await stack.enter_async_context(RedisBackend.from_url(f"redis+sentinel://{hosts}/main"))


async def publish(server, options=""):
    async with asyncio.timeout(HANG), RedisBackend.from_url(server.url(options)) as backend:
        await backend.append([MESSAGE])


@pytest.mark.parametrize("refusal", ["TRYAGAIN Multiple keys", "LOADING Redis is loading"])
async def test_command_goes_to_the_same_server_again(refusal):
    async with Server(b"-%b\r\n" % refusal.encode(), ADDED) as server:
        await publish(server)
        assert (server.count(b"XADD"), server.connections) == (2, 1)


@pytest.mark.parametrize(
    "refusal",
    [
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
    ],
)
async def test_command_goes_over_a_new_connection_when_the_server_takes_no_writes(refusal):
    async with Server(b"-%b\r\n" % refusal.encode(), ADDED) as server:
        await publish(server)
        assert (server.count(b"XADD"), server.connections) == (2, 2)


async def test_command_follows_a_slot_to_the_server_that_is_named():
    async with Server(ADDED) as new, Server(b"-MOVED 7 127.0.0.1:%d\r\n" % new.port) as old:
        await publish(old)
        assert (old.count(b"XADD"), new.count(b"XADD"), new.count(b"ASKING")) == (1, 1, 0)


async def test_command_alone_goes_to_the_server_that_it_is_to_ask():
    async with Server(ADDED) as new, Server(b"-ASK 7 127.0.0.1:%d\r\n" % new.port, ADDED) as old:
        async with RedisBackend.from_url(old.url()) as backend:
            await backend.append([MESSAGE])
            await backend.append([MESSAGE])
        assert (old.count(b"XADD"), old.connections) == (2, 1)
        assert new.received == [b"ASKING", b"XADD"]


class Named:
    """Stands for the connection to a server that was named; `then` is called after the first command."""

    def __init__(self, then):
        self._then, self.asked = then, []

    def send(self, *_):
        """Take ASKING."""

    def resend(self, sent):
        self.asked.append(sent[0])
        if len(self.asked) == 1:
            asyncio.get_running_loop().call_soon(self._then)

    def abort(self, why):
        """Take note of the end."""


async def test_command_that_is_refused_when_the_last_one_was_just_sent_goes_too():
    refusal, place = ServerNotReady("ASK 7 127.0.0.1:7", "ASK"), Place("127.0.0.1", 7)
    async with Server(ADDED) as server, RedisBackend.from_url(server.url()) as backend:
        redirection = (await backend._opened()).connection._redirection
        first, second = ((asyncio.get_running_loop().create_future(), ("GET", "k"), None) for _ in range(2))
        named = redirection._named[place] = Named(lambda: redirection.take(second, refusal, place=place))
        redirection.take(first, refusal, place=place)
        async with asyncio.timeout(HANG):
            while named.asked != [first[0], second[0]]:
                await asyncio.sleep(0)


async def test_command_returns_from_a_server_that_refuses_it_too():
    refusal = b"-TRYAGAIN Multiple keys\r\n"
    async with Server(refusal) as new, Server(b"-ASK 7 127.0.0.1:%d\r\n" % new.port, ADDED) as old:
        await publish(old)
        assert (old.count(b"XADD"), new.count(b"XADD")) == (2, 1)


async def test_command_without_an_answer_is_not_sent_again():
    async with Server(None, ADDED) as server:
        with pytest.raises(BackendUnavailable, match="no answer from Redis"):
            await publish(server)
        assert server.count(b"XADD") == 1


@pytest.mark.parametrize("code", ["TRYAGAIN", "READONLY"])
async def test_refusals_end_when_the_timeout_is_over(code):
    async with Server(b"-%b it may take long\r\n" % code.encode()) as server:
        with pytest.raises(BackendUnavailable, match=code):
            await publish(server, "&socket_timeout=0.3")
        assert server.count(b"XADD") > 1


async def test_what_is_published_while_the_slot_moves_waits_for_the_new_server():
    async with Server(ADDED) as new, Server(b"-MOVED 7 127.0.0.1:%d\r\n" % new.port) as old:
        async with RedisBackend.from_url(old.url()) as backend:
            await asyncio.gather(*(backend.append([MESSAGE]) for _ in range(300)))
        assert new.count(b"XADD") == 300


class TestSentinels:
    async def test_two_must_agree(self):
        async with Server(ADDED) as one, Server(ADDED) as two:
            with pytest.raises(BackendUnavailable, match="two must agree on the primary `main`"):
                async with watched(Sentinel(one), Sentinel(two)) as backend:
                    await backend.append([MESSAGE])
            assert (one.connections, two.connections) == (0, 0)
            async with watched(Sentinel(one), Sentinel(None), Sentinel(one)) as backend:
                await backend.append([MESSAGE])
            assert (one.count(b"XADD"), two.connections) == (1, 0)

    async def test_one_that_counts_the_primary_as_down_does_not_count(self):
        async with Server(ADDED) as server:
            with pytest.raises(BackendUnavailable, match=r"two must agree.*\(down\)"):
                async with watched(Sentinel(server), Sentinel(server, down=True)):
                    pass
            assert not server.connections

    async def test_two_that_name_the_primary_before_a_failover_are_not_believed(self):
        """A restarted old primary would take what is published, and lose it."""
        async with Server(ADDED) as old, Server(ADDED) as new:
            with pytest.raises(BackendUnavailable, match="two must agree"):
                async with watched(Sentinel(old), Sentinel(old), Sentinel(new, epoch=1)):
                    pass
            async with watched(Sentinel(old), Sentinel(new, 1), Sentinel(new, 1)) as backend:
                await backend.append([MESSAGE])
            assert (old.connections, new.count(b"XADD")) == (0, 1)

    async def test_a_later_epoch_is_remembered_unless_all_sentinels_begin_anew(self):
        async with Server(ADDED) as old, Server(ADDED) as new:
            sentinels = Sentinel(new, 3), Sentinel(new, 3), Sentinel(old)
            async with watched(*sentinels) as backend:
                for sentinel, primary in zip(sentinels, (None, old, old), strict=True):
                    sentinel.primary, sentinel.epoch = primary, 0
                backend._node.connection.reset("a test")
                while backend._node.connection.up:
                    await asyncio.sleep(0)
                with pytest.raises(BackendUnavailable, match="two must agree"):
                    await backend.open()
                assert not old.connections
                sentinels[0].primary = old
                await backend.append([MESSAGE])
            assert old.count(b"XADD") == 1

    async def test_a_primary_that_answers_and_is_not_named_any_more_is_left(self):
        """It is cut off from the Sentinels, and what it takes is lost."""
        async with Server(ADDED) as old, Server(ADDED) as new:
            sentinels = [Sentinel(old) for _ in range(3)]
            async with watched(*sentinels) as backend:
                await backend.append([MESSAGE])
                for sentinel in sentinels[1:]:
                    sentinel.primary, sentinel.epoch = new, 1
                async with asyncio.timeout(HANG):
                    while not new.connections:
                        await backend.append([MESSAGE])
                        await asyncio.sleep(0.02)
                await backend.append([MESSAGE])
            assert new.count(b"XADD") >= 1


async def test_publish_to_a_primary_that_is_a_replica_for_a_moment_waits(tmp_path):
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        async with RedisBackend.from_url(server.url) as backend:
            await backend.publish("orders.created", 1)
            client = server.client()
            await client.replicaof("127.0.0.1", "1")
            publishing = [asyncio.create_task(backend.publish("orders.created", n)) for n in range(20)]
            await asyncio.sleep(0.2)
            assert not any(each.done() for each in publishing)
            await client.replicaof("NO", "ONE")
            await asyncio.gather(*publishing)
            assert await client.xlen("orders.created") == 21
