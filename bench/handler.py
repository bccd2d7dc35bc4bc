"""The handlers: coroutines for those who run them, plain functions for those who run threads."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.spec import Spec
from bench.tally import Tally

#: How long the sleeping handler sleeps, in seconds.
NAP = 0.001
#: How long the working handler works, in seconds of processor time.
WORK = 50e-6

_tally = Tally(Spec.received().path)


async def noop(payload: Any) -> None:
    _tally.count()


async def sleep(payload: Any) -> None:
    await asyncio.sleep(NAP)
    _tally.count()


async def work(payload: Any) -> None:
    until = time.thread_time() + WORK
    while time.thread_time() < until:
        pass
    _tally.count()


async def stamp(payload: Any) -> None:
    _tally.stamp(payload["sent"])


async def stamp_anew(payload: Any) -> None:
    """What a changed route calls."""
    _tally.stamp(-payload["sent"])


def noop_in_thread(payload: Any) -> None:
    _tally.count_locked()


def sleep_in_thread(payload: Any) -> None:
    time.sleep(NAP)
    _tally.count_locked()


def stamp_in_thread(payload: Any) -> None:
    _tally.stamp(payload["sent"])


COROUTINES = {"noop": noop, "sleep": sleep, "work": work, "stamp": stamp}
FUNCTIONS = {"noop": noop_in_thread, "sleep": sleep_in_thread, "stamp": stamp_in_thread}
