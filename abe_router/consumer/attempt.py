"""How one route tries its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from abe_router.backend import Delivery, Reason
from abe_router.consumer.disposition import HANDLED, Judge, Verdict
from abe_router.consumer.filter import Admission
from abe_router.consumer.slot import Worker
from abe_router.errors import BatchMismatch
from abe_router.routing.route import Route


class Attempts:
    """Checks, calls the handler, and judges.

    `revision` is that of the route table, stamped on dead letters. `threads` runs sync handlers. With
    `tell_handled` each success gets an event too.
    """

    def __init__(self, route: Route, *, revision: str, threads: Executor, tell_handled: bool) -> None:
        self._route, self._threads = route, threads
        self._judge = Judge(route, revision=revision, tell_handled=tell_handled)
        self._check = Admission(route, self._judge).check
        self._is_brief = self._judge.is_brief
        self._call = route.handler.call if route.handler.is_async else self._call_in_thread

    async def run(self, worker: Worker, delivery: Delivery, now: float) -> Verdict:
        """Try the delivery in the task of `worker`; `now` is the loop's time. Never raises but cancelled."""
        checked = self._check(delivery)
        if isinstance(checked, Verdict):
            return checked
        arguments = (checked[0], delivery.message) if self._route.handler.wants_message else checked
        worker.begin((delivery,), now + self._route.timeout)
        try:
            answer = await self._call(*arguments)
        except BaseException as error:  # noqa: BLE001  SystemExit too: a handler must not end the router
            return self._judge.failed(delivery, self._failure(worker, error))
        finally:
            worker.end()
        if self._is_brief:
            return HANDLED
        return self._judge.handled(delivery, answer, asyncio.get_running_loop().time() - now)

    async def run_batch(self, worker: Worker, deliveries: Sequence[Delivery], now: float) -> list[Verdict]:
        """Try deliveries together; return a verdict for each, in their order. Never raises but cancelled.

        The handler gets the list of payloads and, if it has a second parameter, that of the messages. When
        it returns a list, its items speak for the messages one by one: an exception, such as a `Reject` or
        `Retry`, is that message's failure, anything else its success.
        """
        checked = [self._check(delivery) for delivery in deliveries]
        verdicts = [item if isinstance(item, Verdict) else HANDLED for item in checked]
        places = [index for index, item in enumerate(checked) if not isinstance(item, Verdict)]
        if not places:
            return verdicts
        payloads = [item[0] for item in checked if not isinstance(item, Verdict)]
        messages = [deliveries[index].message for index in places]
        arguments = (payloads, messages) if self._route.handler.wants_message else (payloads,)
        said: Sequence[Any] = [None] * len(places)
        worker.begin(deliveries, now + self._route.timeout)
        try:
            answer = await self._call(*arguments)
        except BaseException as error:  # noqa: BLE001  as in `run`
            said = [self._failure(worker, error)] * len(places)
        else:
            if isinstance(answer, list | tuple):
                said = answer
        finally:
            worker.end()
        seconds = asyncio.get_running_loop().time() - now
        if len(said) != len(places):
            text = f"the handler answered for {len(said)} messages of {len(places)}"
            said = [BatchMismatch(text)] * len(places)
        for index, word in zip(places, said, strict=True):
            if isinstance(word, BaseException | Reason):
                verdicts[index] = self._judge.failed(deliveries[index], word)
            elif not self._is_brief:
                verdicts[index] = self._judge.handled(deliveries[index], word, seconds)
        return verdicts

    def failed(self, delivery: Delivery, error: Exception) -> Verdict:
        """Return the verdict on what the handler did and its outcome, for an error, cannot be carried out."""
        return self._judge.failed(delivery, error)

    async def _call_in_thread(self, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._threads, self._route.handler.call, *arguments)
        # A plain function may return a coroutine.
        return await result if asyncio.iscoroutine(result) else result

    def _failure(self, worker: Worker, error: BaseException) -> BaseException | Reason:
        """Return what it means that the handler ended by `error`; raise it when it is not the handler's."""
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise error
        if not isinstance(error, asyncio.CancelledError):
            return error
        if worker.cancelled:
            raise error
        if worker.timed_out:
            return self._timeout_reason()
        return Reason("failed", "CancelledError", "the handler was cancelled from within")

    def _timeout_reason(self) -> Reason:
        route = self._route
        text = f"the handler ran longer than {route.timeout:g} s"
        if not route.handler.is_async:
            text += "; its thread cannot be stopped and may still be running"
        return Reason("timeout", "TimeoutError", text)
