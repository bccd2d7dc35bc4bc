"""Fetches from the handles of several partitions for one caller.

A handle is asked only if it has work, and then without waiting, so a quiet partition costs nothing. States of
a handle, as this object sees them:

- *quiet*: it has no work. `wake` is called when that may have changed.
- *asked* (`_asked`): a fetch of it runs in a task. The task outlives the fetch of the caller, so an absent
  partition does not hold up the others. What it brings is for the next fetch, unless that comes too late.
- *failed* (`_failed`): its last fetch raised. It is asked again after a delay, with work or without. The
  error is raised when nothing comes from the others: at the end of the wait, or at once if all have failed.

Invariants:

- Of each handle one fetch runs at a time.
- What was delivered lies in a task, in `_arrived`, or with the caller. What no fetch takes within KEPT is
  released, before its handle is asked again.
- The caller counts each lease from the begin of the fetch that returned it. So what an earlier fetch asked
  for is released when it comes late: the loop was blocked, or the process stood still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from abe_router.backend import Delivery
from abe_router.backends.redis.exclusive import ExclusiveRedisSubscription
from abe_router.backends.redis.pipelining import KEPT
from abe_router.backends.redis.subscription import PATIENCE, RedisSubscription
from abe_router.backoff import Backoff
from abe_router.errors import BackendError, SubscriptionClosed

Handle = RedisSubscription | ExclusiveRedisSubscription

#: The wait of a fetch that does what there is to do and does not wait, in seconds: 0 asks all streams.
_AT_ONCE = 1e-9
#: How long, in seconds, other handles have to answer too once there is something.
_MOMENT = 0.002
#: After this time without an answer, in seconds, a handle does not count for the limit of a fetch any more.
_SLOW = 0.05
#: The share of a fetch that is worth the cost of asking a handle.
_WORTHWHILE = 64


class Fetching:
    """The fetches of several handles of one subscription; `release` hands deliveries back."""

    def __init__(
        self,
        handles: Sequence[Handle],
        lease: float,
        release: Callable[[Sequence[Delivery]], Awaitable[None]],
    ) -> None:
        self._handles, self._release = list(handles), release
        #: For how long, in seconds, what was asked for may be handed out, and what has arrived is kept.
        self._usable = lease / 6
        self._kept = min(KEPT, self._usable)
        self._loop = asyncio.get_running_loop()
        self._asked: dict[asyncio.Task[Sequence[Delivery]], Handle] = {}
        #: The share of each task, and when it began.
        self._shares: dict[asyncio.Task[Sequence[Delivery]], tuple[int, float]] = {}
        self._failed: dict[Handle, tuple[float, BackendError]] = {}
        self._backoffs: dict[Handle, Backoff] = {}
        self._arrived: list[Delivery] = []
        #: When the oldest of what has arrived was asked for.
        self._asked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._interrupted = False
        self._closed = False

    def wake(self) -> None:
        """Look for work of the handles."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def interrupt(self) -> None:
        """Make the waiting fetch, or the next one, return at once."""
        self._interrupted = True
        self.wake()

    async def fetch(self, limit: int, wait: float, name: str) -> Sequence[Delivery]:
        """Return deliveries, as Subscription.fetch does; `name` is that of the subscription."""
        began_at = self._loop.time()
        deadline = began_at + wait
        to_ask = set(self._handles) if wait <= 0 else set()
        if self._returning:
            await self._returning
        while True:
            await self._collect(began_at)
            if self._closed:
                raise SubscriptionClosed(f"the subscription `{name}` is closed")
            if self._interrupted or (self._arrived and wait > 0):
                self._interrupted = False
                return self._hand_out(limit)
            self._ask(limit - len(self._arrived), to_ask)
            is_over = self._loop.time() >= deadline
            if not self._asked or (is_over and wait > 0):
                if self._arrived:
                    return self._hand_out(limit)
                if self._failed and (is_over or len(self._failed) == len(self._handles)):
                    raise self._error()
                if is_over:
                    return []
            await self._wait(deadline if wait > 0 else None)

    async def close(self) -> None:
        """Release what has arrived; the handles are closed afterwards."""
        self._closed = True
        self.wake()
        if self._timer:
            self._timer.cancel()
        for handle in self._asked.values():
            handle.interrupt()
        if self._asked:
            await asyncio.wait(self._asked, timeout=PATIENCE)
        if self._returning:
            await self._returning
        for task in self._asked:
            task.cancel()
        if self._asked:
            await asyncio.wait(self._asked)
        with suppress(BackendError):
            await self._collect(self._loop.time())
        await self._release(self._arrived)
        self._arrived = []

    def _ask(self, room: int, to_ask: set[Handle]) -> None:
        """Ask handles that have work, each for a share of what the caller wants, in turn."""
        now, busy = self._loop.time(), set(self._asked.values())
        ready = [
            handle
            for handle in self._handles
            if handle not in busy
            and (handle in to_ask or handle in self._failed or handle.has_work)
            and self._failed.get(handle, (now,))[0] <= now
        ]
        room -= sum(share for share, began in self._shares.values() if now - began < _SLOW)
        if not ready or room < 1:
            return
        count = min(len(ready), max(1, room // _WORTHWHILE) if not to_ask else room)
        fair, more = divmod(room, count)
        for number, handle in enumerate(ready[:count]):
            share = fair + (number < more)
            task = self._loop.create_task(handle.fetch(share, 0.0 if handle in to_ask else _AT_ONCE))
            self._asked[task], self._shares[task] = handle, (share, now)
            task.add_done_callback(self._done)
            to_ask.discard(handle)
            self._handles.remove(handle)
            self._handles.append(handle)

    def _done(self, task: asyncio.Task[Sequence[Delivery]]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as seen
        if self._waiter is None:
            self._keep()
        self.wake()

    async def _collect(self, at: float) -> None:
        """Take in what tasks brought that ended; release what was asked for too long before `at`."""
        ended = [task for task in self._asked if task.done()]
        for task in ended:
            handle, (_, asked_at) = self._asked.pop(task), self._shares.pop(task)
            if task.cancelled():
                continue
            error = task.exception()
            if isinstance(error, SubscriptionClosed):
                self._closed = True
            elif isinstance(error, BackendError):
                backoff = self._backoffs.setdefault(handle, Backoff(0.05, 1.0))
                self._failed[handle] = self._loop.time() + backoff.next(), error
            elif error:
                raise error
            else:
                self._failed.pop(handle, None)
                self._backoffs.pop(handle, None)
                self._asked_at = min(self._asked_at, asked_at) if self._arrived else asked_at
                self._arrived += task.result()
        if self._arrived and at - self._asked_at > self._usable:
            late, self._arrived = self._arrived, []
            await self._release(late)

    def _hand_out(self, limit: int) -> Sequence[Delivery]:
        found, self._arrived = self._arrived[:limit], self._arrived[limit:]
        if self._arrived:
            self._keep()
        return found

    def _keep(self) -> None:
        """Release in a while what no fetch takes until then."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(self._kept, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        if self._waiter is None and not self._closed and self._returning is None:
            self._returning = self._loop.create_task(self._return())

    async def _return(self) -> None:
        try:
            await self._collect(self._loop.time())
            arrived, self._arrived = self._arrived, []
            await self._release(arrived)
        finally:
            self._returning = None

    def _error(self) -> BackendError:
        _, error = next(iter(self._failed.values()))
        return error

    async def _wait(self, deadline: float | None) -> None:
        """Wait for a handle that was asked, for work of another one, or until another one may be asked."""
        now = self._loop.time()
        times = [at for at, _ in self._failed.values()]
        times += [began + _SLOW for _, began in self._shares.values()]
        times = [max(at, now + 0.001) for at in times if at > now - 0.001]
        waiter = self._waiter = self._loop.create_future()
        until = min(times if deadline is None else [*times, deadline], default=None)
        timer = until and self._loop.call_at(until, self.wake)
        try:
            await waiter
            running = [task for task in self._asked if not task.done()]
            if running and len(running) < len(self._asked):
                await asyncio.wait(running, timeout=_MOMENT)
        finally:
            self._waiter = None
            if timer:
                timer.cancel()
            if any(task.done() for task in self._asked):
                self._keep()
