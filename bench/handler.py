"""The handlers: coroutines, and plain functions for contenders that run threads."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from bench.spec import Spec
from bench.tally import Tally

#: Sleep of the sleeping handler, in seconds.
SLEEP = 0.001
#: Processor time of the working handler, in seconds.
WORK = 50e-6

_tally = Tally(Spec.received().path)


async def noop(payload: Any) -> None:
    _tally.count()


async def sleep(payload: Any) -> None:
    await asyncio.sleep(SLEEP)
    _tally.count()


async def work(payload: Any) -> None:
    until = time.thread_time() + WORK
    while time.thread_time() < until:
        pass
    _tally.count()


async def stamp(payload: Any) -> None:
    _tally.stamp(payload["sent"])


async def stamp_edited(payload: Any) -> None:
    """The handler of the edited route."""
    _tally.stamp(-payload["sent"])


async def reject(payload: Any) -> None:
    _tally.count()
    # abe-router alone has this handler, and has imported the module; other contenders may not be able to.
    raise sys.modules["abe_router.errors"].Reject("no such customer")


async def fail(payload: Any) -> None:
    _tally.count()
    raise ValueError("no such customer")


def noop_in_thread(payload: Any) -> None:
    _tally.count_locked()


def sleep_in_thread(payload: Any) -> None:
    time.sleep(SLEEP)
    _tally.count_locked()


def stamp_in_thread(payload: Any) -> None:
    _tally.stamp(payload["sent"])


COROUTINES = {"noop": noop, "sleep": sleep, "work": work, "stamp": stamp}
FUNCTIONS = {"noop": noop_in_thread, "sleep": sleep_in_thread, "stamp": stamp_in_thread}
