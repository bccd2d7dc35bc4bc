"""The thread that owns the connection, and runs all requests in as few commits as it can.

States of the thread:

- idle: no fetch waits, so it waits for requests, and looks once a second whether the file is still there.
- polling: fetches wait, so it waits for requests, or a touch of the log by another process, until
  `Notifier.timeout`, and then polls the file.
- in a round: it runs the requests that have arrived, and the waiting fetches that are worth another try.
- stopped: `stop` was called, the requests queued before it have run, and the connection is closed.

Transitions: idle or polling -> in a round, when requests or a touch arrive or the timeout is over; in a
round -> polling or idle, as fetches wait or not; any -> stopped, by the None that `stop` queues. A waiting
fetch ends by deliveries, by its deadline, by an error, by being withdrawn, or, with none, when the thread
stops.

Invariants:

- Only this thread uses the connection. Only the event loop of a future sets its result; the result of a call
  of another thread is set here.
- A result is sent after the commit of the transaction it comes from, and after its sync if it must be
  durable. An error is sent after the rollback, or after a commit whose sync failed.
- A request that fails is rolled back alone: its round is run again, one request a transaction. So an
  operation may run more than once, and commits once at most.
- Every request ends: whatever is raised in a round rejects the requests of the round and the waiting fetches.
- A fetch is either in a round or in `Notifier.waiters`, never in both.
- Requests of one turn of the event loop arrive together. A round reads first, so that a read never sees a
  write that was asked for after it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from abe_router.backend.time_limit import PUBLISH_TIMEOUT, TimeLimit, publish_timeout
from abe_router.backends.sqlite import dedupe, log
from abe_router.backends.sqlite.database import Database, is_busy
from abe_router.backends.sqlite.inbox import Inbox, LogWatch
from abe_router.backends.sqlite.lease import Claim
from abe_router.backends.sqlite.log import EncodedMessage
from abe_router.backends.sqlite.notifier import Notifier
from abe_router.backends.sqlite.operations import Append, AppendOnce, Fetch, Operation, Request
from abe_router.errors import BackendError, BackendUnavailable

T = TypeVar("T")
A = TypeVar("A", Append, AppendOnce)
#: A round takes no more requests once it has this many, so that none waits long for the others.
_ROUND_SIZE = 2000
#: The longest time between two looks at the file, in seconds.
_IDLE_INTERVAL = 1.0

#: A request with its result, or with the error it failed with.
_Result = tuple[Request[Any], Any, Exception | None]
#: Runs requests in one transaction, and returns what to do after its commit.
_Transaction = Callable[[list[Request[Any]]], Callable[[], None]]


class DatabaseThread:
    """Runs requests in the order they come, all that have arrived in one transaction.

    Results are sent after the commit, all of one event loop with one call.
    """

    def __init__(self, database: Database, *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self._database = database
        #: The appends without a result, and what fails those that are late.
        self._under_way: set[Request[Any]] = set()
        self._limit = TimeLimit[Request[Any]](timeout, lambda: tuple(self._under_way), self._expire)
        watch = LogWatch()
        self._inbox = Inbox(watch)
        self._outbox: list[Request[Any]] = []
        self._notifier = Notifier(database, watch)
        self._results: list[_Result] = []
        self._stopped: asyncio.Future[None] | None = None
        #: The process that started the thread; a fork does not copy the thread.
        self.pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"sqlite {database.path.name}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it takes requests: it was not stopped, and this process started it."""
        return self._stopped is None and self.pid == os.getpid()

    @property
    def generation(self) -> int:
        """A number that rises when the content of the file was replaced."""
        return self._database.generation

    def run(self, function: Callable[[Database], T], *, reads: bool = False) -> asyncio.Future[T]:
        """Call `function` with the file in a transaction; return the future of its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.send(Operation(function, future, reads=reads))
        return future

    def run_blocking(self, function: Callable[[Database], T], timeout: float) -> T:
        """Call `function` with the file in a transaction, for another thread that waits for the result.

        Raise BackendUnavailable when there is none after `timeout` seconds; it may be carried out later.
        """
        future: Future[T] = Future()
        self._check_open()
        if not self._inbox.put([Operation(function, future)]):
            raise self._closed_error()
        try:
            return future.result(timeout)
        except TimeoutError:
            raise BackendUnavailable(f"`{self._database.path}` is locked, or its disk is slow") from None

    def append(self, messages: Sequence[EncodedMessage]) -> asyncio.Future[None]:
        """Add the messages to the log; the future is done once they are committed.

        It fails with PublishTimeout after the time limit.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = Append(messages, future)
        self.send(request)
        self._under_way.add(request)
        return future

    def append_once(
        self, messages: Sequence[dedupe.WindowedMessage], until: float
    ) -> asyncio.Future[list[int]]:
        """Add the messages whose ids are not remembered; return the future of the duplicates' indices.

        It fails with PublishTimeout at `until`, by the clock of the event loop.
        """
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        request = AppendOnce(messages, future)
        self.send(request)
        self._under_way.add(request)
        self._limit.set(request, until)
        return future

    def _expire(self, late: Collection[Request[Any]]) -> None:
        """Fail appends that are late.

        The thread sets `begun` before it reads `withdrawn`, so one of them sees the other.
        """
        for request in late:
            request.withdrawn = True
            sent = request.begun
            request.reject(publish_timeout(f"`{self._database.path}`", sent=sent))
        self._under_way.difference_update(late)

    def send(self, request: Request[Any]) -> None:
        """Queue a request. Sending a fetch whose future is done withdraws it.

        Raise BackendError after a fork, BackendUnavailable when the thread was stopped.
        """
        self._check_open()
        self._outbox.append(request)
        if len(self._outbox) == 1 and request.loop is not None:
            request.loop.call_soon(self._send_outbox)

    def _check_open(self) -> None:
        if self.pid != os.getpid():
            raise BackendError(f"`{self._database.path}` was opened before a fork: open it anew in the child")
        if self._stopped is not None:
            raise self._closed_error()

    def _closed_error(self) -> BackendUnavailable:
        return BackendUnavailable(f"`{self._database.path}` was closed")

    def limit_lock_wait(self) -> None:
        """From now on, wait no longer than a second for the lock of the file."""
        self._database.limit_lock_wait()

    async def stop(self) -> None:
        """Run what is queued, close the file and end the thread. Idempotent."""
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self.limit_lock_wait()
            self._send_outbox()
            self._inbox.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _send_outbox(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._inbox.put(outbox)
            if self._under_way:
                self._limit.watch()

    def _run(self) -> None:
        running = True
        while running:
            arrived, running = self._receive()
            try:
                self._run_round(arrived)
            except Exception as error:  # noqa: BLE001  after a bug of ours, every request must still end
                self._reject((*arrived, *self._notifier.waiters), error)
            self._send_results()
            if arrived or self._notifier.waiters:
                self._database.checkpoint()
            else:
                self._database.look()
        self._reject(self._inbox.close(), self._closed_error())
        self._results += [(fetch, (), None) for fetch in self._notifier.waiters]
        self._send_results()
        self._database.close()
        self._notifier.close()
        assert self._stopped is not None
        with suppress(RuntimeError):
            self._stopped.get_loop().call_soon_threadsafe(self._stopped.set_result, None)

    def _receive(self) -> tuple[list[Request[Any]], bool]:
        """Return the requests that have come, and False when the thread is to stop after them.

        Wait for the first one, but no longer than until the notifier has to poll.
        """
        arrived: list[Request[Any]] = []
        if not self._inbox:
            timeout = self._notifier.timeout()
            self._inbox.wait(_IDLE_INTERVAL if timeout is None else timeout, watching=timeout is not None)
        while self._inbox and len(arrived) < _ROUND_SIZE:
            requests = self._inbox.take()
            if requests is None:
                return arrived, False
            arrived += requests
        return arrived, True

    def _run_round(self, arrived: Iterable[Request[Any]]) -> None:
        """Run the requests that have arrived, and the waiting fetches that are worth another try."""
        reads: list[Request[Any]] = []
        writes: list[Request[Any]] = []
        fetches: list[Request[Any]] = []
        for request in arrived:
            if isinstance(request, Fetch):
                self._notifier.waiters.remove(request)
            if not request.future.done():
                kind = fetches if isinstance(request, Fetch) else reads if request.reads else writes
                kind.append(request)
        if self._notifier.waiters or fetches:
            fetches += self._notifier.poll()
        if writes or not all(fetch.reads for fetch in fetches):
            self._run_transaction(reads, self._read)
            self._run_transaction([*writes, *fetches], self._write)
        else:
            self._run_transaction([*reads, *fetches], self._read)

    def _run_transaction(self, requests: list[Request[Any]], transaction: _Transaction) -> None:
        """Run the requests in one transaction, or each in its own when one of them fails."""
        if not requests:
            return
        try:
            after_commit = self._database.retry_while_locked(lambda: transaction(requests))
        except Exception as error:  # noqa: BLE001  the requests are rejected with it, whatever it is
            if len(requests) == 1 or isinstance(error, BackendError) or is_busy(error):
                self._reject(requests, error)
            else:
                for request in requests:
                    self._run_transaction([request], transaction)
        else:
            after_commit()

    def _read(self, requests: list[Request[Any]]) -> Callable[[], None]:
        """Run the requests that only read, and let the fetches claim that would find something."""
        database, results = self._database, []
        ready: list[Request[Any]] = []
        idle: list[Fetch] = []
        with database.reading():
            for request in requests:
                if isinstance(request, Operation):
                    results.append((request, request.run(database), None))
                elif isinstance(request, Fetch):
                    (ready if request.can_claim(database) else idle).append(request)

        def after_commit() -> None:
            self._results.extend(results)
            for fetch in idle:
                self._wait(fetch)
            self._run_transaction(ready, self._write)

        return after_commit

    def _write(self, requests: list[Request[Any]]) -> Callable[[], None]:
        """Run all requests; waiting fetches claim what that makes available in the same commit."""
        database = self._database
        requests[:] = [request for request in requests if not request.withdrawn]
        if not requests:
            return lambda: None
        appends = [request for request in requests if isinstance(request, Append)]
        fetches = [request for request in requests if isinstance(request, Fetch)]
        # A claim that a loss of power undoes is made again, so it does not wait for the disk.
        with database.writing(durable=len(fetches) < len(requests)):
            appends = _begin(appends)
            log.append(database, [message for append in appends for message in append.messages])
            results: list[_Result] = [(append, None, None) for append in appends]
            if once := _begin([request for request in requests if isinstance(request, AppendOnce)]):
                results += _append_once(database, once)
            results += [
                (request, request.run(database), None)
                for request in requests
                if isinstance(request, Operation)
            ]
            woken = self._notifier.concerned()
            fetches += woken
            requests += woken  # so that they are tried again should this transaction fail
            claims = [(fetch, fetch.claim(database)) for fetch in fetches]
            self._notifier.before_commit()

        def after_commit() -> None:
            self._notifier.note_due()
            self._results.extend(results)
            for fetch, claim in claims:
                if claim.size:
                    self._run_transaction([fetch], partial(self._read_claim, fetch, claim))
                else:
                    self._wait(fetch)

        return after_commit

    def _read_claim(self, fetch: Fetch, claim: Claim, requests: list[Request[Any]]) -> Callable[[], None]:
        """Read what a fetch has claimed."""
        deliveries = fetch.read(self._database, claim)
        return partial(self._results.append, (requests[0], deliveries, None))

    def _wait(self, fetch: Fetch) -> None:
        """Let a fetch that found nothing wait, or end it when its deadline is over."""
        if fetch.deadline <= time.monotonic():
            self._results.append((fetch, (), None))
        else:
            fetch.reads = True  # it looks before its next claim
            self._notifier.waiters.add(fetch)

    def _reject(self, requests: Iterable[Request[Any]], error: Exception) -> None:
        for request in requests:
            if isinstance(request, Fetch):
                self._notifier.waiters.remove(request)
            own: Exception = error
            if isinstance(error, sqlite3.Error):
                own = self._database.as_backend_error(error)
            elif isinstance(error, BackendError):
                own = type(error)(str(error))  # one for each request: raising it adds to its traceback
            self._results.append((request, None, own))

    def _send_results(self) -> None:
        """Resolve the futures, each in its event loop, and those of other threads here."""
        if not self._results:
            return
        results, self._results = self._results, []
        by_loop: dict[asyncio.AbstractEventLoop | None, list[_Result]] = defaultdict(list)
        for result in results:
            by_loop[result[0].loop].append(result)
        for loop, part in by_loop.items():
            if loop is None:
                _resolve(part)
                continue
            with suppress(RuntimeError):  # the loop is closed, so nothing awaits the futures
                loop.call_soon_threadsafe(self._settle, part)

    def _settle(self, results: Sequence[_Result]) -> None:
        """Resolve the futures of one event loop."""
        self._under_way.difference_update([request for request, _, _ in results])
        _resolve(results)


def _begin(appends: list[A]) -> list[A]:
    """Mark appends as begun, and return those that were not withdrawn."""
    for append in appends:
        append.begun = True
    return [append for append in appends if not append.withdrawn]


def _append_once(database: Database, requests: Sequence[AppendOnce]) -> Iterator[_Result]:
    """Add the messages of all requests together; yield for each the indices of its own duplicates."""
    messages = [message for request in requests for message in request.messages]
    duplicates = set(dedupe.append(database, messages))
    first = 0
    for request in requests:
        size = len(request.messages)
        yield request, [index for index in range(size) if first + index in duplicates], None
        first += size


def _resolve(results: Iterable[_Result]) -> None:
    for request, result, error in results:
        if error is None:
            request.resolve(result)
        else:
            request.reject(error)
