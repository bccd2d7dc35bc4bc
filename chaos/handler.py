"""The handlers of the routes under test: they record their start and end, and do what the message says."""

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

#: Number of attempts at which a handler with the action `raise` fails before it succeeds.
FAILURES = 2
#: A time longer than any timeout, in seconds.
_FOREVER = 3600.0
#: Longest time from the end of a handler to the kill of its process, in seconds: the ack is being sent.
_ACKING = 0.02


@cache
def _folder() -> Path:
    return Path(os.environ["CHAOS_FOLDER"])


@cache
def _ledger() -> Ledger:
    return Ledger(_folder() / "ledger")


async def work(payload: Payload, message: Message) -> Payload:
    """Handle as a coroutine; the returned value is emitted to `follow`."""
    number, action = payload["n"], payload["do"]
    _ledger().note(STARTED, number, message.id, "loop", message.attempt)
    if action == "hang" and message.attempt == 1:
        await asyncio.sleep(_FOREVER)
    if action == "swallow":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(_FOREVER)
    if action == "block" and _first_time(number, "loop"):
        _ledger().note(BLOCKED, number, message.id, "loop", message.attempt)
        time.sleep(BLOCKS * float(os.environ["CHAOS_LEASE"]))  # noqa: ASYNC251  blocking is the purpose
    _act(payload, message, "loop")
    await asyncio.sleep(payload["ms"] / 1000)
    if action == "die" and _first_time(number, "loop"):
        os.kill(os.getpid(), signal.SIGKILL)
    _ledger().note(ENDED, number, message.id, "loop", message.attempt)
    if action == "die-acking" and _first_time(number, "loop"):
        delay = random.Random(number).uniform(0, _ACKING)
        asyncio.get_running_loop().call_later(delay, os.kill, os.getpid(), signal.SIGKILL)
    return payload


def work_in_thread(payload: Payload, message: Message) -> None:
    """Handle as a plain function."""
    number, action = payload["n"], payload["do"]
    _ledger().note(STARTED, number, message.id, "thread", message.attempt)
    if action == "hang" and message.attempt == 1:
        time.sleep(1.5 * float(os.environ["CHAOS_TIMEOUT"]))
        raise RuntimeError("as planned")  # the timeout may be late on a blocked loop
    _act(payload, message, "thread")
    time.sleep(payload["ms"] / 1000)
    _ledger().note(ENDED, number, message.id, "thread", message.attempt)


async def follow(payload: Payload, message: Message) -> None:
    """Handle the output of `work`."""
    _ledger().note(STARTED, payload["n"], message.id, "follow", message.attempt)
    await asyncio.sleep(payload["ms"] / 5000)
    _ledger().note(ENDED, payload["n"], message.id, "follow", message.attempt)


async def step(payload: Payload, message: Message) -> None:
    """Handle a step, in the order of its ordering key."""
    _ledger().note(STARTED, payload["n"], message.id, "ordered", message.attempt)
    _act(payload, message, "ordered")
    await asyncio.sleep(payload["ms"] / 1000)
    _ledger().note(ENDED, payload["n"], message.id, "ordered", message.attempt)


async def ignore(payload: Payload) -> None:
    """Handle for groups that edits add and remove; their messages are not counted."""


def _act(payload: Payload, message: Message, group: str) -> None:
    match payload["do"]:
        case "raise" if message.attempt <= FAILURES:
            raise RuntimeError("as planned")
        case "fail":
            raise RuntimeError("as planned")
        case "reject":
            raise Reject("as planned")
        case "quit" if message.attempt == 1:
            sys.exit("as planned")
        case "poison":
            os._exit(EXITED[0])
        case "exit" if _first_time(payload["n"], group):
            os._exit(EXITED[0])


def _first_time(number: int, group: str) -> bool:
    """Return True once for each message and group, in all processes together."""
    try:
        os.close(os.open(_folder() / f"once-{group}-{number}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
