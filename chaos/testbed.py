"""The environment in which a fault runs: a backend, workers, a producer, and their records."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from chaos import command, plan, worker
from chaos.checker import DEAD_LETTERED, InjectedFault, LogEntry, Verdict, check, waiting
from chaos.control import Control
from chaos.disk import Disk
from chaos.growing import GrowingFile
from chaos.ledger import ACCEPTED, ASKED, BLOCKED, ENDED, STARTED, Entry, entry_of
from chaos.process import Process
from chaos.proxy import Proxy
from chaos.redis_servers import RedisCluster, RedisSentinels
from chaos.routes_file import DRAIN, MAX_DELIVERIES, TIMEOUT, RoutesFile
from chaos.storage import RedisStorage, ReplicatedStorage, SQLiteStorage, Storage
from chaos.supervisor import Supervisor
from chaos.worker import PATIENCE, Worker, WorkerGroup

#: Time that recovery may take beyond the lease, in seconds: a supervisor waits a second before it replaces a
#: worker that died twice, and a worker takes a second to start beside those of other rows.
MARGIN = 3.0
#: A lease that no worker loses unless it stops for this long, in seconds.
LONG = 6.0
#: Messages published at once at the start, and the rate per second after that.
BURST, RATE = 100, 100.0
#: Longest time without progress while work is left, in seconds.
STALL_LIMIT = 4.0


@dataclass(frozen=True)
class Setup:
    """Options of a testbed; `lease` and `timeout` are in seconds, `redis` are options of redis.conf.

    `servers` makes a cluster or Sentinels, in place of one server, and `slots` spreads the keys over it.
    `mix` says what handlers do. With `proxied`, the server is behind a proxy. `program` replaces
    `abe-router serve`. With `children`, each of the `workers` is a supervisor with that many workers. Without
    `ordered`, no steps are published.
    """

    lease: float = 2.0
    max_deliveries: int = MAX_DELIVERIES
    timeout: float = TIMEOUT
    mix: plan.Mix = field(default_factory=dict[str, int])
    redis: Mapping[str, str] = field(default_factory=dict)
    servers: Callable[[Path], RedisCluster | RedisSentinels] | None = None
    slots: int = 0
    proxied: bool = False
    small_disk: bool = False
    workers: int = 2
    program: Path | None = None
    children: int = 0
    ordered: bool = True


class Testbed:
    """One run; a context manager. `seconds` is the time for faults, `folder` is empty."""

    def __init__(self, setup: Setup, backend: str, *, seed: int, seconds: float, folder: Path) -> None:
        self.setup, self.folder, self._seed, self._seconds = setup, folder, seed, seconds
        self.rng = random.Random(f"{seed}/{backend}")
        self.storage: Storage
        if backend == "sqlite":
            self.storage = SQLiteStorage(folder / "data")
        elif setup.servers:
            self.storage = ReplicatedStorage(setup.servers(folder / "data"), setup.slots)
        else:
            self.storage = RedisStorage(folder / "data", setup.redis)
        self.routes, self.ledger = folder / "routes.yaml", folder / "ledger"
        self._entries = GrowingFile(self.ledger, entry_of)
        #: What the machine withholds from the workers of this row.
        self.control = Control(folder, lambda: [one.pid for one in self.workers.running])
        # Producers read a file of their own, because an edit may be invalid when a producer starts.
        self._published = folder / "published.yaml"
        self.workers = WorkerGroup(setup.workers, self._worker, self.rng)
        self.proxy: Proxy | None = None
        self.disk: Disk | None = None
        self.producers: list[Process] = []
        #: The injected faults, except the deaths of workers.
        self.injected: list[InjectedFault] = []
        #: Number of injections, and time that each recovery took, in seconds.
        self.count, self.recoveries = 0, list[float]()
        #: Violations of the promise, and limits of time that were missed.
        self.violations, self.late = list[str](), list[str]()
        self._over = 0.0
        self._changing_producers = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        data = self.folder / "data"
        data.mkdir()
        async with AsyncExitStack() as stack:
            if self.setup.small_disk:
                self.disk = stack.enter_context(Disk(data))
            stack.push_async_callback(self.storage.stop)
            await self.storage.start()
            self.routes_file = RoutesFile(
                self.storage.url, self.setup.lease, self.setup.max_deliveries, self.setup.timeout
            )
            if self.setup.proxied:
                assert isinstance(self.storage, RedisStorage)
                self.proxy = await stack.enter_async_context(Proxy(self.storage.port))
                self.routes_file = replace(self.routes_file, backend=self.storage.url_at(self.proxy.port))
            stack.push_async_callback(self._end)
            self.routes.write_text(self.routes_file.text)
            self._published.write_text(self.routes_file.text)
            self.ledger.touch()
            await asyncio.gather(self.produce(), self.workers.start())
            stack.enter_context(self.control)
            self._over = time.monotonic() + self._seconds
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def waits(self) -> float:
        """Longest time that a message may wait or be in flight, in seconds.

        A worker whose event loop is blocked keeps the leases of all that it holds.
        """
        return self.setup.lease + self.longest_block + MARGIN

    @property
    def longest_block(self) -> float:
        """Longest time for which a handler blocks the event loop, in seconds."""
        return plan.BLOCKS * self.setup.lease if "block" in self.setup.mix else 0.0

    @property
    def is_over(self) -> bool:
        """Whether the time for faults is over."""
        return time.monotonic() >= self._over

    async def moments(self, least: float, most: float) -> AsyncIterator[int]:
        """Yield at random moments, `least` to `most` seconds apart, until the time is over.

        While nothing could be injected, go on beyond that time.
        """
        number = 0
        while not (self.is_over and self.count):
            await asyncio.sleep(self.rng.uniform(least, most))
            number += 1
            yield number

    async def last(self) -> None:
        """Wait until the time for faults is over."""
        await asyncio.sleep(max(0.0, self._over - time.monotonic()))

    async def produce(self) -> None:
        """Kill the producer if one runs, and start one that continues after the last number.

        Return when it has published. A producer that cannot reach the backend is replaced; raise RuntimeError
        if none can for a long time.
        """
        async with self._changing_producers:
            if self.producers:
                await self.producers[-1].end()
            await self._produce()

    async def _produce(self) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            first = max(self._asked(), default=-1) + 1
            arguments: list[Any] = [
                "-m",
                "chaos.producer",
                self.folder,
                "--routes",
                self._published,
            ]
            arguments += ["--seed", self._seed, "--first", first, "--mix", json.dumps(dict(self.setup.mix))]
            arguments += ["--steps", *self._next_steps()]
            arguments += ["--rate", RATE, "--burst", 0 if self.producers else BURST]
            producer = Process([str(argument) for argument in arguments], {}, self.folder / "producer.log")
            await producer.start()
            self.producers.append(producer)
            while producer.is_running:
                if any(entry.pid == producer.pid for entry in self.entries()):
                    return
                await asyncio.sleep(0.02)
        raise RuntimeError(f"no producer starts; see {self.producers[-1].log}")

    def move_to(self, storage: Storage) -> None:
        """Use another backend from now on, and stop it at the end."""
        self._stack.push_async_callback(storage.stop)
        self.storage = storage

    def _all_injected(self) -> list[InjectedFault]:
        """Return all faults: deaths of workers, blocked loops and injections."""
        lasts, entries = self.longest_block, self.entries()
        blocked = [InjectedFault(e.at, e.at + lasts, e.pid) for e in entries if e.kind == BLOCKED]
        worker_deaths = self.workers.worker_deaths({entry.pid: entry.at for entry in entries})
        return [*worker_deaths, *blocked, *self.injected]

    def is_at_work(self, pid: int) -> bool:
        """Return whether a worker has started an attempt that has not ended."""
        own = [entry for entry in self.entries() if entry.pid == pid]
        begun = {entry[1:5] for entry in own if entry.kind == STARTED}
        return bool(begun - {entry[1:5] for entry in own if entry.kind == ENDED})

    def entries(self) -> Sequence[Entry]:
        """Return the ledger so far."""
        return self._entries.items()

    def actions(self) -> Counter[str]:
        """Count the messages so far by what their handlers do, without those that just work."""
        actions = (plan.payload(self._seed, number, self.setup.mix)["do"] for number in self._asked())
        return Counter(action for action in actions if action != "work")

    def _asked(self) -> set[int]:
        """Return the numbers of the messages published so far, without the steps."""
        return {e.number for e in self.entries() if e.kind == ASKED and e.number < plan.STEPS}

    def _next_steps(self) -> list[int]:
        """Return the next step of each ordering key, or the last one if its acceptance is unknown."""
        following = {ordering_key: plan.STEPS + ordering_key for ordering_key in range(plan.ORDERING_KEYS)}
        for entry in self.entries():
            if entry.number >= plan.STEPS and entry.kind in (ASKED, ACCEPTED):
                step = entry.number + (plan.ORDERING_KEYS if entry.kind == ACCEPTED else 0)
                ordering_key = plan.ordering_key(entry.number)
                following[ordering_key] = max(following[ordering_key], step)
        return list(following.values()) if self.setup.ordered else []

    def unaccepted(self) -> int:
        """Return how many messages were published and are not accepted so far."""
        kinds = [entry.kind for entry in self.entries()]
        return kinds.count(ASKED) - kinds.count(ACCEPTED)

    @contextmanager
    def injecting(
        self, pid: int | None = None, *, loses: float = math.inf, undoes: float = math.inf
    ) -> Iterator[None]:
        """Record a fault that lasts as long as the context; see InjectedFault."""
        begin = time.time()
        try:
            yield
        finally:
            self.injected.append(InjectedFault(begin, time.time(), pid, loses, undoes))

    async def finish(self) -> Verdict:
        """Stop the producer, wait until all messages are handled, drain the workers, and check the run."""
        code, _, _ = await self.producers[-1].terminate()
        if code:
            self.violations.append(f"the producer ended with {code}; see {self.producers[-1].log}")
        await self._until(lambda: not waiting(self.entries(), self._dead_lettered(), self._all_injected()))
        self.workers.stop_replacing()
        _, dead_letters = await asyncio.gather(self._settled(), self.ask("dead", "list"))
        for late in (one for one in self.workers.running if not one.is_up):
            await late.end()
        for ended in await asyncio.gather(*(one.terminate() for one in self.workers.running)):
            self.check_exit(*ended)
        dead = {(dead_letter["message_id"], _group(dead_letter["route"])) for dead_letter in dead_letters}
        return self._verdict(dead, await self._numbers(dead_letters))

    def check_exit(self, code: int, began: float, ended_at: float) -> float:
        """Check how a worker ended after SIGTERM; return how many seconds of the machine it took."""
        if code and not (code in plan.EXITED and plan.EXITING.keys() & self.setup.mix.keys()):
            self.violations.append(f"a worker ended with {code} after SIGTERM")
        if (seconds := self.control.given(began, ended_at)) > DRAIN + 1.0 + self.longest_block:
            self.late.append(f"a worker took {seconds:.1f} s to end, the drain time is {DRAIN:g} s")
        return seconds

    async def ask(self, *arguments: str) -> Any:
        """Run a command of `abe-router`; return its JSON output."""
        given = ("--json", "--backend", self.storage.url, "-c", str(self.routes))
        ended = await command.run([*arguments, *given])
        if ended.code:
            raise RuntimeError(f"abe-router {' '.join(arguments)}: {ended.err}")
        return json.loads(ended.out)

    async def _numbers(self, dead_letters: Sequence[Mapping[str, str]]) -> dict[str, int]:
        """Return the numbers of the dead dead_letters without a ledger entry, read from their payloads."""
        known = {entry.message for entry in self.entries()}
        numbers = {}
        for dead_letter in dead_letters:
            if dead_letter["message_id"] not in known:
                shown = await self.ask("dead", "show", dead_letter["route"], dead_letter["id"])
                numbers[dead_letter["message_id"]] = shown["payload"]["n"]
        return numbers

    def _outcomes(self) -> Iterator[LogEntry]:
        """Yield the outcomes that the workers logged."""
        return (outcome for one in self.workers.all for outcome in one.outcomes())

    def _dead_lettered(self) -> set[tuple[str, str]]:
        """Return message id and group of each dead letter that the workers logged."""
        return {(one.message, one.group) for one in self._outcomes() if one.kind == DEAD_LETTERED}

    def _verdict(self, dead: set[tuple[str, str]], numbers: Mapping[str, int]) -> Verdict:
        """Check the run."""
        expected_dead = {
            number for number in self._asked() if plan.becomes_dead_letter(self._seed, number, self.setup.mix)
        }
        return check(
            self.entries(),
            self._outcomes(),
            dead=dead,
            expected_dead=expected_dead,
            injected=self._all_injected(),
            numbers=numbers,
            worker_from=self.workers.worker_from,
            given=self.control.given,
        )

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait until `done` returns True, or until there is no progress."""
        size, moved_at = 0, time.time()
        while not await asyncio.to_thread(done):  # other rows run at the same time
            await asyncio.sleep(0.2)
            if (now := self.ledger.stat().st_size) != size:
                size, moved_at = now, time.time()
            if self.control.since(moved_at) > self.setup.lease + STALL_LIMIT:
                return

    async def _settled(self) -> None:
        """Wait until the backend has no work left; record what is left after the limit as violations."""
        began = time.time()
        while left := await self._left():
            if self.control.since(began) > self.waits:
                self.violations += left
                return
            await asyncio.sleep(0.2)

    async def _left(self) -> list[str]:
        """Return the work that the backend has left, as text."""
        found = []
        for row in (await self.ask("status"))["routes"]:
            count = sum(row[name] or 0 for name in ("ready", "in_flight", "delayed"))
            if row["in_file"] and count:
                found.append(f"{count} stuck in {row['route']}")
        return found

    def _worker(self, number: int) -> Worker:
        environment = {
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_LEASE": str(self.setup.lease),
            "CHAOS_TIMEOUT": str(self.setup.timeout),
            "CHAOS_SEED": f"{self._seed}/{number}",
        }
        log, children = self.folder / f"worker-{number}.log", self.setup.children
        kind, options = (Supervisor, ["--workers", str(children)]) if children else (Worker, [])
        return kind(worker.argv(self.setup.program, self.routes, *options), environment, log)

    async def _end(self) -> None:
        (self.folder / "injected").write_text("".join(f"{one}\n" for one in self._all_injected()))
        await self.workers.close()
        await asyncio.gather(*(producer.end() for producer in self.producers))


def _group(route: str) -> str:
    return route.rpartition("/")[2]
