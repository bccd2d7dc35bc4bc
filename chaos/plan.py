"""The messages of a run, and what their handlers do; the same seed gives the same messages."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from functools import cache
from typing import TypedDict

#: Shortest and longest time that a handler works, in milliseconds.
WORK = 2.0, 50.0
#: Time for which a handler blocks the event loop, as a multiple of the lease.
BLOCKS = 1.5

#: Maps an action to N: one message in N asks for it. All other messages just work.
Mix = Mapping[str, int]
#: Handlers that fail: `raise` fails twice and then succeeds, `fail` always fails, `reject` raises Reject,
#: `quit` calls `sys.exit`, `hang` sleeps beyond the timeout, and `swallow` also ignores its cancellation.
FAILING: Mix = {"raise": 10, "fail": 50, "reject": 50, "quit": 50, "hang": 50, "swallow": 100}
#: Handlers that block the event loop for longer than the lease, once each.
BLOCKING: Mix = {"block": 150}
#: Handlers that end their process once: at their start, before their end, while their ack is being sent.
EXITING: Mix = {"exit": 300, "die": 300, "die-acking": 150}
#: Exit codes of processes that a handler ended.
EXITED = 3, -signal.SIGKILL
#: Handlers that end their process at each call.
POISONOUS: Mix = {"poison": 300}

#: Actions whose messages become dead letters.
DEAD_LETTERED_ACTIONS = frozenset({"fail", "reject", "poison"})


#: Messages from this number on are steps: the steps of one ordering key are handled in order, each once.
STEPS, ORDERING_KEYS = 1_000_000, 4
#: Handlers of steps only raise, and succeed at a later attempt.
_STEP_MIX: Mix = {"raise": 20}


class Payload(TypedDict):
    """A message: its number, its ordering key, what its handler does, and for how many milliseconds."""

    n: int
    ordering_key: int
    do: str
    ms: float


def payload(seed: int, number: int, mix: Mix) -> Payload:
    """Return message `number` of the run."""
    draw = random.Random(f"{seed}/{number}")
    mix = mix if number < STEPS else _STEP_MIX
    # Each action has a fixed position in every N messages, so that a short run meets all of them.
    actions = [action for action, among in mix.items() if number % among == _position(seed, action, among)]
    action = draw.choice(actions) if actions else "work"
    return {
        "n": number,
        "ordering_key": ordering_key(number),
        "do": action,
        "ms": round(draw.uniform(*WORK), 1),
    }


def ordering_key(number: int) -> int:
    """Return the ordering key of a step; its next step has a number that is larger by ORDERING_KEYS."""
    return number % ORDERING_KEYS


@cache
def _position(seed: int, action: str, among: int) -> int:
    return random.Random(f"{seed}/{action}").randrange(among)


def becomes_dead_letter(seed: int, number: int, mix: Mix) -> bool:
    """Return whether message `number` must become a dead letter."""
    return payload(seed, number, mix)["do"] in DEAD_LETTERED_ACTIONS
