"""The thread that owns the connection, and does all that is asked of it in as few commits as it can."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from abe_router.backends.sqlite import ids, log
from abe_router.backends.sqlite.database import Database, is_busy
from abe_router.backends.sqlite.lease import Claim
from abe_router.backends.sqlite.log import Encoded
from abe_router.backends.sqlite.operation import Append, AppendOnce, Asked, Fetch, Operation
from abe_router.backends.sqlite.waiting import Waiting
from abe_router.backends.sqlite.watch import Watch
from abe_router.errors import BackendError, BackendUnavailable

T = TypeVar("T")
#: From so many operations on a commit takes no more of them, so that none waits long for the others.
_BATCH = 2000

#: An operation with its result, or with the error it failed with.
_Ended = tuple[Asked[Any], Any, Exception | None]
#: Runs a transaction with all that is asked, and returns what is to be done once it is committed.
_Transact = Callable[[list[Asked[Any]]], Callable[[], None]]


class Worker:
    """Runs operations in the order they come, all that are there at once in one transaction.

    An operation that fails is undone alone. Futures are resolved after the commit, all with one call
    into the event loop.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: queue.SimpleQueue[list[Asked[Any]] | None] = queue.SimpleQueue()
        self._outbox: list[Asked[Any]] = []
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

    def append(self, messages: Sequence[Encoded]) -> asyncio.Future[None]:
        """Have the messages added to the log; return the future of their being kept."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put(Append(messages, future))
        return future

    def append_once(self, messages: Sequence[ids.Windowed]) -> asyncio.Future[list[int]]:
        """Have the messages added whose ids are not remembered; return the future of the others' places."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.put(AppendOnce(messages, future))
        return future

    def put(self, asked: Asked[Any]) -> None:
        """Queue what is asked. A fetch that nobody waits for any more is forgotten when it is put again.

        What is asked in one round of the event loop is handed over together, and so committed together.
        """
        if self.pid != os.getpid():
            raise BackendError(f"`{self._database.path}` was opened before a fork: open it anew in the child")
        if self._stopped is not None:
            raise BackendUnavailable(f"`{self._database.path}` was closed")
        self._outbox.append(asked)
        if len(self._outbox) == 1:
            asked.future.get_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._queue.put(outbox)

    def hurry(self) -> None:
        """Wait no longer than a moment for the lock of the file, from now on."""
        self._database.hurry()

    async def stop(self) -> None:
        """Do what is queued, close the file and end the thread. Idempotent."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self.hurry()
            self._hand_over()
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
            self._database.tidy()
        self._ended += [(fetch, (), None) for fetch in self._waiting]
        self._flush()
        self._database.close()
        assert self._stopped is not None
        with suppress(RuntimeError):
            self._stopped.get_loop().call_soon_threadsafe(self._stopped.set_result, None)

    def _gather(self) -> tuple[list[Asked[Any]], bool]:
        """Return what is queued, waiting for it as long as nothing else is to be done; False at the end."""
        pause = None
        if self._waiting:
            pause = max(0.0, min(self._watch.interval, self._waiting.next - time.monotonic()))
        arrived: list[Asked[Any]] = []
        with suppress(queue.Empty):
            asked = self._queue.get(timeout=pause)
            while asked is not None:
                arrived += asked
                if len(arrived) >= _BATCH:
                    return arrived, True
                asked = self._queue.get_nowait()
            return arrived, False
        return arrived, True

    def _round(self, arrived: Iterable[Asked[Any]]) -> None:
        """Do what has arrived, and try the waiting fetches that have reason to hope."""
        reads: list[Asked[Any]] = []
        writes: list[Asked[Any]] = []
        fetches: list[Asked[Any]] = []
        for each in arrived:
            if isinstance(each, Fetch):
                self._waiting.remove(each)
            if not each.future.done():
                kind = fetches if isinstance(each, Fetch) else reads if each.reads else writes
                kind.append(each)
        if self._waiting or fetches:
            fetches += self._woken()
        if writes or not all(each.reads for each in fetches):
            self._attempt(reads, self._read)
            self._attempt([*writes, *fetches], self._write)
        else:
            self._attempt([*reads, *fetches], self._read)

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
        self._watch.adapt(found=bool(found))
        for fetch in found:
            self._waiting.remove(fetch)
        return [fetch for fetch in found if not fetch.future.done()]

    def _attempt(self, asked: list[Asked[Any]], transact: _Transact) -> None:
        """Do all in one transaction, or each in its own when one of them fails."""
        if not asked:
            return
        try:
            follow_up = self._database.patiently(lambda: transact(asked))
        except Exception as error:  # noqa: BLE001  whatever it is, it goes to whoever asked
            if len(asked) == 1 or isinstance(error, BackendError) or is_busy(error):
                self._reject(asked, error)
            else:
                for each in asked:
                    self._attempt([each], transact)
        else:
            follow_up()

    def _read(self, asked: list[Asked[Any]]) -> Callable[[], None]:
        """Do what only reads, and then claim for those fetches that a look finds worth it."""
        database, results = self._database, []
        hopeful: list[Asked[Any]] = []
        idle: list[Fetch] = []
        with database.reading():
            for each in asked:
                if isinstance(each, Operation):
                    results.append((each, each.run(database), None))
                elif isinstance(each, Fetch):
                    (hopeful if each.is_worth_it(database) else idle).append(each)

        def follow_up() -> None:
            self._ended.extend(results)
            for fetch in idle:
                self._found_nothing(fetch)
            self._attempt(hopeful, self._write)

        return follow_up

    def _write(self, asked: list[Asked[Any]]) -> Callable[[], None]:
        """Do it all; what that makes available goes out to waiting fetches in the same commit."""
        database = self._database
        appends = [each for each in asked if isinstance(each, Append)]
        fetches = [each for each in asked if isinstance(each, Fetch)]
        with database.writing():
            log.append(database, [message for each in appends for message in each.messages])
            results: list[_Ended] = [(each, None, None) for each in appends]
            if once := [each for each in asked if isinstance(each, AppendOnce)]:
                results += _append_once(database, once)
            results += [(each, each.run(database), None) for each in asked if isinstance(each, Operation)]
            for fetch in self._waiting.hear(database.news, database.keys):
                self._waiting.remove(fetch)
                fetches.append(fetch)
                asked.append(fetch)  # so that none is forgotten should this fail
            claims = [(fetch, fetch.claim(database)) for fetch in fetches]
            self._watch.wrote()

        def follow_up() -> None:
            self._waiting.hear(database.news, database.keys)  # the claims' own: when their leases end
            self._ended.extend(results)
            for fetch, claim in claims:
                if claim.size:
                    self._attempt([fetch], partial(self._hand_out, fetch, claim))
                else:
                    self._found_nothing(fetch)

        return follow_up

    def _hand_out(self, fetch: Fetch, claim: Claim, asked: list[Asked[Any]]) -> Callable[[], None]:
        """Read what a fetch has claimed."""
        deliveries = fetch.read(self._database, claim)
        return partial(self._ended.append, (asked[0], deliveries, None))

    def _found_nothing(self, fetch: Fetch) -> None:
        if fetch.deadline <= time.monotonic():
            self._ended.append((fetch, (), None))
        else:
            self._waiting.add(fetch)

    def _reject(self, asked: Iterable[Asked[Any]], error: Exception) -> None:
        for each in asked:
            if isinstance(each, Fetch):
                self._waiting.remove(each)
            fault: Exception = error
            if isinstance(error, sqlite3.Error):
                fault = self._database.fault(error)
            elif isinstance(error, BackendError):
                fault = type(error)(str(error))  # each its own: raising one adds to its traceback
            self._ended.append((each, None, fault))

    def _flush(self) -> None:
        """Tell the results to whoever waits for them."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        by_loop: dict[asyncio.AbstractEventLoop, list[_Ended]] = defaultdict(list)
        for end in ended:
            by_loop[end[0].future.get_loop()].append(end)
        for loop, part in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear of it
                loop.call_soon_threadsafe(_tell, part)


def _append_once(database: Database, asked: Sequence[AppendOnce]) -> Iterator[_Ended]:
    """Add what is not remembered, of all together; yield for each the places of its own that are."""
    passed_over = set(ids.append(database, [message for each in asked for message in each.messages]))
    first = 0
    for each in asked:
        size = len(each.messages)
        yield each, [place for place in range(size) if first + place in passed_over], None
        first += size


def _tell(ended: Iterable[_Ended]) -> None:
    for operation, result, error in ended:
        if error is None:
            operation.resolve(result)
        else:
            operation.reject(error)
