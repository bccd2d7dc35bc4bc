"""One prefix over several hash tags: where a key lies, how many tags there are, fetches from all of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from abe_router.backend import ACKED, Acked, Delivery
from abe_router.backends import find_provider, make_backend
from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.health import rules
from abe_router.backends.redis.layout import Layout
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.partitioned import PartitionedRedisBackend, fetching
from abe_router.backends.redis.partitioned.fetching import Fetching
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import new_message
from tests.limits import HANG

from .test_model import run
from .world import PartitionedWorld

NAME = "orders.*/billing"


@pytest.fixture
def url(redis_server):
    return f"{redis_server.url}?hash_tag=abe"


class TestLayout:
    async def test_a_key_lies_where_cluster_keyslot_says(self, url, prefix, redis_client):
        async with make_backend(f"{url}&slots=4", prefix=prefix) as backend:
            for number in range(20):
                await backend.publish(f"orders.k{number}", 1)
        names = sorted([name.decode() async for name in redis_client.scan_iter(f"*{prefix}orders.k*")])
        tags = ("{abe}", "{abe:1}", "{abe:2}", "{abe:3}")
        # CLUSTER KEYSLOT needs a cluster; these are its answers modulo 4.
        numbers = {key: Layout(4, "abe").number(key) for key in (f"orders.k{n}" for n in range(20))}
        assert names == sorted(f"{tags[number]}{prefix}{key}" for key, number in numbers.items())
        assert set(numbers.values()) == {0, 1, 2, 3}

    async def test_another_number_of_slots_is_refused(self, url, prefix):
        async with make_backend(f"{url}&slots=4", prefix=prefix):
            pass
        for other in ("&slots=8", "&slots=1", ""):
            backend = make_backend(url + other, prefix=prefix)
            for call in (backend.open, backend.status, lambda b=backend: b.publish("orders.created", 1)):
                with pytest.raises(BackendError, match="was stored with `slots=4`: give the URL `slots=4`"):
                    await call()
            await backend.close()
        async with make_backend(f"{url}&slots=4", prefix=prefix) as backend:
            assert (await backend.check_health())[0].code != "D301"
        (found,) = [
            result
            for result in await make_backend(f"{url}&slots=8", prefix=prefix).check_health()
            if result.code == "D301"
        ]
        assert "`slots=8`" in found.message

    async def test_slots_are_refused_where_a_file_without_them_has_data(self, url, prefix):
        async with make_backend(url, prefix=prefix) as backend:
            await backend.publish("orders.created", 1)
        backend = make_backend(f"{url}&slots=4", prefix=prefix)
        with pytest.raises(BackendError, match="was stored with no `slots`"):
            await backend.open()
        await backend.close()
        async with make_backend(f"{url}&slots=1", prefix=prefix) as backend:
            assert len(await backend.peek("#", None)) == 1

    async def test_concurrent_first_processes_agree(self, url, prefix):
        backends = [make_backend(f"{url}&slots={count}", prefix=prefix) for count in (4, 4, 8, 8)]
        opened = await asyncio.gather(*(each.open() for each in backends), return_exceptions=True)
        assert sum(error is None for error in opened) == 2
        for backend in backends:
            await backend.close()

    def test_the_url_chooses_the_class(self):
        assert find_provider("redis+cluster://a?slots=16") is PartitionedRedisBackend
        assert find_provider("redis+cluster://a") is RedisBackend
        assert Address.parse("rediss+cluster://a?slots=256").slots == 256
        for wrong in ("redis+cluster://a?slots=x", "redis+cluster://a?slots=0", "unix:///a?slots=2"):
            with pytest.raises(BackendError, match="`slots`"):
                make_backend(wrong)


def test_partitions_agree_with_the_model(url):
    run(lambda: PartitionedWorld(f"{url}&slots=3"), 8)


def deliveries(*numbers):
    return [Delivery(new_message("orders.created", b"%d" % number), 1, b"") for number in numbers]


class FakeHandle:
    """A handle whose fetches return what a test says, or raise it; `hold` keeps them waiting."""

    def __init__(self, *answers, hold=False):
        self.answers, self.limits = list(answers), []
        self.go_on = asyncio.Event()
        if not hold:
            self.go_on.set()

    @property
    def has_work(self):
        return bool(self.answers)

    def interrupt(self):
        self.go_on.set()

    async def fetch(self, limit, wait):
        self.limits.append(limit)
        await self.go_on.wait()
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer


class TestFetching:
    """Fetches from several partitions."""

    @pytest.fixture(autouse=True)
    def _released(self):
        self.released = []

    async def release(self, given):
        self.released += given

    def make(self, *handles, lease=60.0):
        return Fetching(handles, lease, self.release)

    async def test_slow_partition_holds_up_no_other(self):
        first, second = deliveries(1, 2)
        slow, quick = FakeHandle([first], hold=True), FakeHandle([second])
        both = self.make(slow, quick)
        assert await both.fetch(1, 5.0, NAME) == [second]
        assert await both.fetch(1, 0.01, NAME) == []
        slow.go_on.set()
        assert await both.fetch(1, 5.0, NAME) == [first]
        await both.close()
        assert self.released == []

    async def test_error_of_a_partition_is_raised_when_no_other_has_something(self):
        (first,) = deliveries(1)
        errors = [BackendUnavailable("gone") for _ in range(20)]
        both = self.make(FakeHandle(*errors), FakeHandle([first]))
        assert await both.fetch(10, 5.0, NAME) == [first]
        with pytest.raises(BackendUnavailable, match="gone"):
            await both.fetch(10, 0.1, NAME)
        await both.close()

    async def test_error_that_is_over_is_not_raised(self):
        both = self.make(FakeHandle(BackendUnavailable("gone")), FakeHandle())
        assert await both.fetch(1, 0.3, NAME) == []
        await both.close()

    async def test_error_of_all_partitions_is_raised_at_once(self):
        both = self.make(*(FakeHandle(BackendUnavailable("gone")) for _ in range(2)))
        with pytest.raises(BackendUnavailable):
            await asyncio.wait_for(both.fetch(10, 60.0, NAME), HANG)
        await both.close()

    async def test_what_no_fetch_takes_is_released(self):
        late = deliveries(1, 2)
        slow = FakeHandle(late, hold=True)
        both = self.make(slow, FakeHandle(), lease=0.02)
        assert await both.fetch(5, 0.01, NAME) == []
        slow.go_on.set()
        async with asyncio.timeout(HANG):
            while not self.released:
                await asyncio.sleep(0.005)
        assert self.released == late
        assert await both.fetch(5, 0.01, NAME) == []
        await both.close()

    async def test_what_was_asked_for_before_a_long_block_is_released(self):
        late = deliveries(1, 2)
        slow = FakeHandle(late, hold=True)
        both = self.make(slow, FakeHandle(), lease=0.6)
        assert await both.fetch(5, 0.01, NAME) == []
        slow.go_on.set()
        time.sleep(0.11)  # noqa: ASYNC251  the block of the loop is what is tested
        assert await both.fetch(5, 0.01, NAME) == []
        assert self.released == late
        await both.close()

    async def test_closing_releases_what_has_arrived(self):
        late = deliveries(1, 2)
        slow = FakeHandle(late, hold=True)
        both = self.make(slow, FakeHandle())
        assert await both.fetch(5, 0.01, NAME) == []
        await both.close()
        assert self.released == late

    async def test_partitions_take_turns_and_share_the_limit(self):
        handles = [FakeHandle(*[deliveries(n)] * 8) for n in range(4)]
        together = self.make(*handles)
        came = [int(each.message.body) for _ in range(8) for each in await together.fetch(1, 5.0, NAME)]
        assert came == [0, 1, 2, 3] * 2
        limit = 4 * fetching._WORTHWHILE
        assert len(await together.fetch(limit, 5.0, NAME)) == 4
        assert [handle.limits[-1] for handle in handles] == [fetching._WORTHWHILE] * 4
        await together.close()

    async def test_interrupt_ends_the_wait(self):
        both = self.make(FakeHandle(), FakeHandle())
        waiting = asyncio.create_task(both.fetch(1, 60.0, NAME))
        await asyncio.sleep(0)
        both.interrupt()
        assert await asyncio.wait_for(waiting, HANG) == []
        await both.close()


async def test_calls_of_many_keys_reach_all_partitions(url, prefix):
    async with make_backend(f"{url}&slots=8", prefix=prefix) as backend:
        messages = [new_message(f"orders.k{n % 40}", b"%d" % n) for n in range(400)]
        await backend.append(messages)
        windowed = [(new_message(f"orders.k{n}", b"0", id="same"), 60.0) for n in range(40)]
        assert not await backend.append_once(windowed)
        assert len(await backend.append_once(windowed)) == 40
        handle = await backend.subscribe("orders.*", "billing")
        came = []
        async with asyncio.timeout(HANG):
            while len(came) < 440:
                held = await handle.fetch(100, HANG)
                assert len(held) <= 100
                assert not await handle.settle([(each, ACKED) for each in held])
                came += held
        by_key = {}
        for each in came:
            by_key.setdefault(each.message.key, []).append(int(each.message.body))
        assert by_key == {f"orders.k{k}": [*range(k, 400, 40), 0] for k in range(40)}
        (status,) = await backend.status()
        assert (status.ready, status.in_flight) == (0, 0)
        assert await backend.trim({}) == 440


async def test_the_rights_that_the_page_names_are_enough(url, prefix, redis_client):
    allowed = [rule for rule in rules(Names(prefix, "abe")) if not rule.startswith("~")]
    user = ("ACL", "SETUSER", "spread", "reset", "on", ">right", "~{abe*", *allowed)
    await redis_client.execute_command(*user)
    async with make_backend(f"{url.replace('//', '//spread:right@')}&slots=4", prefix=prefix) as backend:
        handles = [await backend.subscribe(pattern, "all") for pattern in ("orders.*", "done.*")]
        await backend.append([new_message(f"orders.k{n}", b"1") for n in range(8)])
        came = []
        async with asyncio.timeout(HANG):
            while len(came) < 8:
                held = await handles[0].fetch(8, HANG)
                outputs = [Acked((new_message(f"done.k{n}", b"1"),)) for n in range(len(held))]
                assert not await handles[0].settle(list(zip(held, outputs, strict=True)))
                came += held
            while len(came) < 16:
                came += await handles[1].fetch(8, 5.0)
        results = {result.code: result.severity for result in await backend.check_health()}
        assert results["D303"] == "ok"
