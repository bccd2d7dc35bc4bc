"""Redis Cluster: the whole contract on three masters with a replica each."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends import make_backend
from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.finder import slot_of
from abe_router.backends.redis.health import rules
from abe_router.backends.redis.names import Names
from abe_router.conformance import BackendConformance
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import Duplicate
from abe_router.operations.metrics import Metrics
from abe_router.operations.status import read_status
from abe_router.routing.table import RouteTable
from abe_router.testing import RedisServer
from abe_router.testing.redis_server import free_port
from chaos.redis_servers import call, host_and_port, until
from tests.limits import HANG

from .deliveries import as_dead
from .redis_load import Load
from .test_model import run
from .tls import certificate
from .world import RedisWorld

pytestmark = pytest.mark.heavy(50)

TAG = "abe"


def replicated_by(node):
    """Return what a node replicates: nothing, or the line of its master in its view."""
    role, *master = call(node, "ROLE")
    if role != "slave":
        return ""
    lines = call(node, "CLUSTER", "NODES").splitlines()
    return next(line for line in lines if f"{master[0]}:{master[1]}@" in line)


class TestRedisCluster(BackendConformance):
    has_short_form = True
    lease, pause, backlog, entries = 0.1, 0.02, 4000, 2500

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster):
        self.cluster = cluster
        self.owner = cluster.owner(slot_of(TAG))
        # Other processes, and the proxy that loses replies, use one node, which is the owner of the slot.
        self.url = f"{self.owner.url}?hash_tag={TAG}"

    def make_backend(self, prefix):
        return make_backend(f"{self.cluster.url}?hash_tag={TAG}", prefix=prefix)

    def stop_server(self):
        self.cluster.wait()
        self.owner.kill()

    def start_server(self):
        # Before that, it would serve the slot again, and without its data.
        until(lambda: self.cluster.owner(slot_of(TAG)) is not self.owner)
        self.owner.start()
        self.cluster.wait()


def test_cluster_agrees_with_the_model(cluster):
    run(lambda: RedisWorld(cluster.url), 8)


async def test_the_url_of_any_node_finds_the_cluster(cluster, refusing_port):
    for node in cluster.nodes:
        async with RedisBackend.from_url(node.url, prefix="shop.") as backend:
            await backend.publish("orders.created", 1)
            assert backend.url.startswith("redis+cluster://127.0.0.1:")
        url = backend.url.replace("//", f"//127.0.0.1:{refusing_port},")
        async with RedisBackend.from_url(url) as backend:
            assert backend.node
    assert call(cluster.owner(slot_of("shop.")), "XLEN", "{shop.}shop.orders.created") == 6


async def test_the_rights_that_doctor_names_are_enough(cluster):
    names = Names("least.", "least.")
    for node in cluster.nodes:
        call(node, "ACL", "SETUSER", "least", "reset", "on", ">right", *rules(names))
    url = cluster.url.replace("//", "//least:right@")
    async with RedisBackend.from_url(url, prefix="least.") as backend:
        subscription = await backend.subscribe("orders.created", "billing")
        await backend.publish("orders.created", 1)
        assert await subscription.fetch(1, HANG)
        results = {result.code: result for result in await backend.check_health()}
        assert results["D303"].severity == "ok"


async def test_a_credential_provider_logs_in_at_each_node(cluster, tmp_path, monkeypatch):
    (tmp_path / "cluster_tokens.py").write_text(
        "from redis.credentials import CredentialProvider\n\n\n"
        "class Tokens(CredentialProvider):\n"
        "    def get_credentials(self):\n"
        '        return "token", "right"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    for node in cluster.nodes:
        call(node, "ACL", "SETUSER", "token", "reset", "on", ">right", "~*", "+@all")
    url = f"{cluster.url}?credential_provider=cluster_tokens:Tokens"
    async with RedisBackend.from_url(url, prefix="tokens.") as backend:
        await backend.publish("orders.created", 1)
    assert call(cluster.owner(slot_of("tokens.")), "EXISTS", "{tokens.}tokens.orders.created")
    with pytest.raises(BackendError, match="WRONGPASS"):
        await RedisBackend.from_url(cluster.url.replace("//", "//token:wrong@")).open()


async def test_the_nodes_of_a_cluster_are_reached_over_tls(tls, tmp_path):
    port = free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-port", str(port))
    options += (
        *certificate(tmp_path),
        "--tls-auth-clients",
        "no",
        "--cluster-announce-hostname",
        "localhost",
    )
    options += ("--cluster-preferred-endpoint-type", "hostname")
    with RedisServer(tmp_path, options=options) as server:
        call(server, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await asyncio.to_thread(until, lambda: call(server, "CLUSTER INFO")["cluster_state"] == "ok")
        url = f"rediss+cluster://127.0.0.1:{port}?ssl_cert_reqs=none"
        async with RedisBackend.from_url(url) as backend:
            await backend.publish("orders.created", 1)
            assert backend.node == f"localhost:{port}"
        with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await RedisBackend.from_url(f"rediss+cluster://localhost:{port}").open()


async def test_all_names_on_the_server_are_in_one_slot(cluster):
    async with RedisBackend.from_url(cluster.url, prefix="slot.") as backend:
        subscription = await backend.subscribe("orders.*", "billing")
        await backend.publish("orders.created", 1, id="a", window=60.0)
        assert await subscription.fetch(1, HANG)
        await backend.put("bucket", "name", b"value", ttl=60.0)
        await backend.take_tokens("rate", 0.1, 1)
        await backend.trim({"orders.*": 60.0})
    with Redis.from_url(cluster.owner(slot_of("slot.")).url, decode_responses=True) as client:
        names = [name for name in client.scan_iter() if "slot." in name]
        assert "{slot.}slot.orders.created" in names
        assert len(names) > 7
        assert {slot_of(name.partition("{")[2].partition("}")[0]) for name in names} == {slot_of("slot.")}
        assert {client.cluster("KEYSLOT", name) for name in names} == {slot_of("slot.")}


async def test_doctor_knows_the_cluster(cluster):
    async with RedisBackend.from_url(cluster.url, prefix="health.") as backend:
        subscription = await backend.subscribe("orders.created", "billing", lease=0.5)
        assert not await subscription.fetch(1, 0.0)
        found = {result.code: result for result in await backend.check_health()}
    place = "{}:{}".format(*host_and_port(cluster.owner(slot_of("health."))))
    slots = f"{place} serves slot {slot_of('health.')}; 3 masters serve all slots"
    assert (found["D333"].severity, found["D333"].message) == ("ok", slots)
    assert found["D335"].message == "a failover begins after 1s, and the shortest lease is 500ms"
    assert "; the closest lacks " in found["D331"].message
    for replicas, codes in ((1, {"D331": "ok"}), (2, {"D331": "ok", "D332": "error"})):
        health = RedisBackend.from_url(f"{cluster.url}?replicas={replicas}", prefix="health.").check_health()
        results = {result.code: result.severity for result in await health}
        assert {code: results[code] for code in ("D331", "D332") if code in results} == codes


async def test_status_and_metrics_name_the_node(cluster):
    place = "{}:{}".format(*host_and_port(cluster.owner(slot_of("status."))))
    table = RouteTable(backend=cluster.url, prefix="status.")
    async with RedisBackend.from_url(cluster.url, prefix="status.") as backend:
        status = await read_status(table, backend)
    assert status.node == place
    assert f'abe_router_backend_node_info{{node="{place}"}} 1' in Metrics().render(status=status).decode()


@pytest.mark.parametrize("at_once", [False, True])
async def test_moving_slot_refuses_loses_and_doubles_nothing(cluster, at_once):
    if at_once and not cluster.moves_slots_at_once():
        pytest.skip("the server lacks CLUSTER MIGRATESLOTS")
    slot = slot_of("moves.")
    async with Load(cluster.url, "moves.") as load:
        for _ in range(2):
            await load.more()
            before = cluster.owner(slot)
            after = await asyncio.to_thread(cluster.move, slot, pause=0.03, at_once=at_once)
            assert after is not before
        await load.more()
    assert not load.refused
    assert not load.outages
    assert not load.lost
    assert not load.doubled
    assert call(cluster.owner(slot), "EXISTS", "{moves.}moves.orders.k0")


async def test_planned_failover_refuses_loses_and_doubles_nothing(cluster):
    slot = slot_of("planned.")
    async with Load(cluster.url, "planned.") as load:
        await load.more()
        owner = cluster.owner(slot)
        await asyncio.to_thread(cluster.wait, 1_000_000)
        ids = [node for node in cluster.nodes if cluster.id_of(owner) in replicated_by(node)]
        call(ids[0], "CLUSTER", "FAILOVER")
        await asyncio.to_thread(until, lambda: cluster.owner(slot) is not owner)
        await load.more()
    assert not load.refused
    assert not load.lost
    assert not load.doubled


async def test_messages_that_a_replica_confirmed_outlive_their_master(cluster):
    slot = slot_of("dies.")
    async with Load(f"{cluster.url}?replicas=1", "dies.") as load:
        for _ in range(2):
            await load.more()
            owner = cluster.owner(slot)
            await asyncio.to_thread(cluster.wait, 1_000_000)
            owner.kill()
            await asyncio.to_thread(until, lambda owner=owner: cluster.owner(slot) is not owner)
            owner.start()
            await load.more()
            await asyncio.to_thread(cluster.wait, 1_000_000)
    assert load.outages
    assert not load.lost


class TestThePage:
    """docs/cluster.md."""

    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text("utf-8")

    def test_its_urls_are_read(self):
        url = self.page.partition("backend: ")[2].partition("\n")[0]
        address = Address.parse(re.sub(r"\$\{\w+\}", "secret", url))
        assert [str(seed) for seed in address.seeds] == ["s1:26379", "s2:26379", "s3:26379"]
        assert address.sentinels.name == "main"

    async def test_a_prefix_is_moved_with_all_that_belongs_to_it(
        self, cluster, redis_server, prefix, tmp_path
    ):
        async with RedisBackend.from_url(redis_server.url, prefix=prefix) as backend:
            subscription = await backend.subscribe("orders.*", "billing")
            for number in range(5):
                await backend.publish("orders.created", number, id=str(number), window=60.0)
            held = await subscription.fetch(4, HANG)
            outcomes = ACKED, as_dead(held[1]), Delayed(60.0), RELEASED
            assert not await subscription.settle(list(zip(held, outcomes, strict=True)))
            await backend.put("overrides", "orders.created/billing", b"paused")
            await subscription.close()
            before = await backend.status()
        program = tmp_path / "move_prefix.py"
        program.write_text(self.page.partition("```python\n")[2].partition("```")[0])
        command = (sys.executable, program, redis_server.url, cluster.nodes[0].url, prefix)
        assert "keys were copied" in await asyncio.to_thread(subprocess.check_output, command, text=True)
        async with RedisBackend.from_url(cluster.url, prefix=prefix) as backend:
            assert await backend.status() == before
            assert isinstance(await backend.publish("orders.created", 0, id="0", window=60.0), Duplicate)
            assert (await backend.get("overrides", "orders.created/billing")).value == b"paused"
            (dead_letter,) = await backend.dead_letters("orders.*", "billing")
            assert dead_letter.message.id == "1"
            subscription = await backend.subscribe("orders.*", "billing")
            found = [*await subscription.fetch(2, 5.0), *await subscription.fetch(2, 1.0)]
            assert [delivery.message.id for delivery in found] == ["3", "4"]
