"""The thread that owns the connection, and does all that is asked of it in as few commits as it can."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from abe_router.backends.sqlite.database import Database, is_busy
from abe_router.backends.sqlite.operation import Fetch, Operation
from abe_router.backends.sqlite.waiting import Waiting
from abe_router.backends.sqlite.watch import Watch
from abe_router.errors import BackendError, BackendUnavailable

T = TypeVar("T")
#: The most operations that share a commit, so that none waits long for the others.
_BATCH = 500

#: An operation with its result, or with the error it failed with.
_Ended = tuple[Operation[Any], Any, Exception | None]


class Worker:
    """Runs operations in the order they come, all that are there at once in one transaction.

    An operation that fails is undone alone. Futures are resolved after the commit, all with one call
    into the event loop.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: queue.SimpleQueue[Operation[Any] | None] = queue.SimpleQueue()
        self._waiting = Waiting()
        self._watch = Watch(database)
        self._ended: list[_Ended] = []
        self._stopped: asyncio.Future[None] | None = None
        #: The process it was started in; a fork does not take the thread along.
        self.pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"sqlite {database.path.name}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it takes operations: neither stopped nor left behind by a fork."""
        return self._stopped is None and self.pid == os.getpid()

    def submit(self, run: Callable[[Database], T], *, reads: bool = False) -> asyncio.Future[T]:
        """Have `run` called with the file in a transaction; return the future of its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.put(Operation(run, future, reads=reads))
        return future

    def put(self, operation: Operation[Any]) -> None:
        """Queue an operation. A fetch that nobody waits for any more is forgotten when it is put again."""
        if not self.is_running:
            raise BackendUnavailable(f"`{self._database.path}` was closed")
        self._queue.put(operation)

    async def stop(self) -> None:
        """Do what is queued, close the file and end the thread. Idempotent."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._database.hurry()
            self._queue.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            arrived, going = self._gather()
            try:
                self._round(arrived)
            except Exception as error:  # noqa: BLE001  a fault here must not leave anyone waiting for ever
                self._reject((*arrived, *self._waiting), error)
            self._flush()
            self._database.checkpoint()
        self._ended += [(fetch, (), None) for fetch in self._waiting]
        self._flush()
        self._database.close()
        assert self._stopped is not None
        with suppress(RuntimeError):
            self._stopped.get_loop().call_soon_threadsafe(self._stopped.set_result, None)

    def _gather(self) -> tuple[list[Operation[Any]], bool]:
        """Return what is queued, waiting for it as long as nothing else is to be done; False at the end."""
        pause = None
        if self._waiting:
            pause = max(0.0, min(self._watch.interval, self._waiting.next - time.monotonic()))
        arrived: list[Operation[Any]] = []
        with suppress(queue.Empty):
            operation = self._queue.get(timeout=pause)
            while operation is not None:
                arrived.append(operation)
                if len(arrived) == _BATCH:
                    return arrived, True
                operation = self._queue.get_nowait()
            return arrived, False
        return arrived, True

    def _round(self, arrived: Iterable[Operation[Any]]) -> None:
        operations: list[Operation[Any]] = []
        fetches: list[Fetch] = []
        for operation in arrived:
            if isinstance(operation, Fetch):
                self._waiting.remove(operation)
                fetches.append(operation)
            else:
                operations.append(operation)
        if self._waiting or fetches:
            fetches += self._woken()
        everything = [op for op in (*operations, *fetches) if not op.future.done()]
        writes = any(not (op.reads or isinstance(op, Fetch)) for op in everything)
        self._attempt(everything, self._write if writes else self._read)

    def _woken(self) -> list[Fetch]:
        """Take out the waiting fetches that others' commits or the time make worth a try."""
        found = set(self._waiting.ripe())
        try:
            news = self._watch.look()
            if news is not None:
                found.update(self._waiting.hear(news, self._database.keys))
            due = self._watch.due()
            if due is not None:
                found.update(self._waiting.compare(due))
        except sqlite3.OperationalError as error:
            if not is_busy(error):  # then the next look will tell
                raise
        for fetch in found:
            self._waiting.remove(fetch)
        return list(found)

    def _attempt(
        self, operations: list[Operation[Any]], transact: Callable[[list[Operation[Any]]], None]
    ) -> None:
        """Do the operations in one transaction, or each in its own when one of them fails."""
        if not operations:
            return
        try:
            self._database.patiently(lambda: transact(operations))
        except Exception as error:  # noqa: BLE001  whatever it is, it goes to whoever asked
            if len(operations) == 1 or isinstance(error, BackendError) or is_busy(error):
                self._reject(operations, error)
            else:
                for operation in operations:
                    self._attempt([operation], transact)

    def _read(self, operations: list[Operation[Any]]) -> None:
        """Do what only reads, and claim for those fetches that a look finds worth it."""
        results: list[_Ended] = []
        hopeful: list[Operation[Any]] = []
        idle: list[Fetch] = []
        with self._database.reading():
            for operation in operations:
                if not isinstance(operation, Fetch):
                    results.append((operation, operation.run(self._database), None))
                elif operation.is_worth_it(self._database):
                    hopeful.append(operation)
                else:
                    idle.append(operation)
        self._ended += results
        for fetch in idle:
            self._found_nothing(fetch)
        self._attempt(hopeful, self._write)

    def _write(self, operations: list[Operation[Any]]) -> None:
        """Do it all; what that makes available goes out to waiting fetches in the same commit."""
        database = self._database
        fetches = [operation for operation in operations if isinstance(operation, Fetch)]
        with database.writing():
            results = [(op, op.run(database), None) for op in operations if not isinstance(op, Fetch)]
            for fetch in self._waiting.hear(database.news, database.keys):
                self._waiting.remove(fetch)
                fetches.append(fetch)
                operations.append(fetch)  # so that none is forgotten should this fail
            claims = [(fetch, fetch.run(database)) for fetch in fetches]
            self._watch.wrote()
        self._waiting.hear(database.news, database.keys)  # the claims' own: when their leases end
        self._ended += results
        for fetch, deliveries in claims:
            if deliveries:
                self._ended.append((fetch, deliveries, None))
            else:
                self._found_nothing(fetch)

    def _found_nothing(self, fetch: Fetch) -> None:
        if fetch.deadline <= time.monotonic():
            self._ended.append((fetch, (), None))
        else:
            self._waiting.add(fetch)

    def _reject(self, operations: Iterable[Operation[Any]], error: Exception) -> None:
        for operation in operations:
            if isinstance(operation, Fetch):
                self._waiting.remove(operation)
            fault: Exception = error
            if isinstance(error, sqlite3.Error):
                fault = self._database.fault(error)
            elif isinstance(error, BackendError):
                fault = type(error)(str(error))  # each its own: raising one adds to its traceback
            self._ended.append((operation, None, fault))

    def _flush(self) -> None:
        """Tell the results to whoever waits for them."""
        ended, self._ended = self._ended, []
        by_loop: dict[asyncio.AbstractEventLoop, list[_Ended]] = defaultdict(list)
        for end in ended:
            by_loop[end[0].future.get_loop()].append(end)
        for loop, part in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear of it
                loop.call_soon_threadsafe(_tell, part)


def _tell(ended: Iterable[_Ended]) -> None:
    for operation, result, error in ended:
        if error is None:
            operation.resolve(result)
        else:
            operation.reject(error)
