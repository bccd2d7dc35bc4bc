"""The handlers of the routes under test: they note when they begin and end, and between do as told."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from abe_router import Message, Reject
from chaos.ledger import BLOCKED, ENDED, STARTED, Ledger
from chaos.plan import BLOCKS, EXITED, Payload

#: How often a handler that raises does so before it succeeds.
FAILURES = 2
#: Longer than any handler may take, in seconds.
_FOREVER = 3600.0
#: How long after its end a handler may let its process live, in seconds: the ack is on its way then.
_ACKING = 0.02


@cache
def _folder() -> Path:
    return Path(os.environ["CHAOS_FOLDER"])


@cache
def _ledger() -> Ledger:
    return Ledger(_folder() / "ledger")


async def work(payload: Payload, message: Message) -> Payload:
    """Handle as a coroutine; what it returns is emitted for `follow`."""
    number, deed = payload["n"], payload["do"]
    _ledger().note(STARTED, number, message.id, "loop", message.attempt)
    if deed == "hang" and message.attempt == 1:
        await asyncio.sleep(_FOREVER)
    if deed == "swallow":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(_FOREVER)
    if deed == "block" and _first_time(number, "loop"):
        _ledger().note(BLOCKED, number, message.id, "loop", message.attempt)
        time.sleep(BLOCKS * float(os.environ["CHAOS_LEASE"]))  # noqa: ASYNC251  it is the point
    _misbehave(payload, message, "loop")
    await asyncio.sleep(payload["ms"] / 1000)
    if deed == "die" and _first_time(number, "loop"):
        os.kill(os.getpid(), signal.SIGKILL)
    _ledger().note(ENDED, number, message.id, "loop", message.attempt)
    if deed == "die-acking" and _first_time(number, "loop"):
        delay = random.Random(number).uniform(0, _ACKING)
        asyncio.get_running_loop().call_later(delay, os.kill, os.getpid(), signal.SIGKILL)
    return payload


def work_in_thread(payload: Payload, message: Message) -> None:
    """Handle as a plain function."""
    number, deed = payload["n"], payload["do"]
    _ledger().note(STARTED, number, message.id, "thread", message.attempt)
    if deed == "hang" and message.attempt == 1:
        time.sleep(1.5 * float(os.environ["CHAOS_TIMEOUT"]))
        raise RuntimeError("as told")  # its time may not be up where the loop was held up meanwhile
    _misbehave(payload, message, "thread")
    time.sleep(payload["ms"] / 1000)
    _ledger().note(ENDED, number, message.id, "thread", message.attempt)


async def follow(payload: Payload, message: Message) -> None:
    """Handle what `work` emitted."""
    _ledger().note(STARTED, payload["n"], message.id, "follow", message.attempt)
    await asyncio.sleep(payload["ms"] / 5000)
    _ledger().note(ENDED, payload["n"], message.id, "follow", message.attempt)


async def step(payload: Payload, message: Message) -> None:
    """Handle what must be handled in order."""
    _ledger().note(STARTED, payload["n"], message.id, "ordered", message.attempt)
    _misbehave(payload, message, "ordered")
    await asyncio.sleep(payload["ms"] / 1000)
    _ledger().note(ENDED, payload["n"], message.id, "ordered", message.attempt)


async def look_on(payload: Payload) -> None:
    """Handle for groups that come and go with edits; nobody counts what they get."""


def _misbehave(payload: Payload, message: Message, group: str) -> None:
    match payload["do"]:
        case "raise" if message.attempt <= FAILURES:
            raise RuntimeError("as told")
        case "fail":
            raise RuntimeError("as told")
        case "reject":
            raise Reject("as told")
        case "quit" if message.attempt == 1:
            sys.exit("as told")
        case "poison":
            os._exit(EXITED[0])
        case "exit" if _first_time(payload["n"], group):
            os._exit(EXITED[0])


def _first_time(number: int, group: str) -> bool:
    """Say, once over all processes, that this is the first time."""
    try:
        os.close(os.open(_folder() / f"once-{group}-{number}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
