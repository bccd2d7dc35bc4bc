"""What the messages of a run ask of their handlers: the same seed, the same messages."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import TypedDict

#: How long a handler works, in milliseconds: between the first and the second.
WORK = 2.0, 50.0
#: How long a handler that blocks the event loop does so, as a multiple of the lease.
BLOCKS = 1.5

#: Deeds, and of how many messages one asks for it; all others just work.
Mix = Mapping[str, int]
#: Handlers that fail: `raise` twice and then succeed, `fail` for good, `reject`, `quit` as by `sys.exit`,
#: sleep beyond their time, and do so without letting themselves be cancelled.
FAILING: Mix = {"raise": 10, "fail": 50, "reject": 50, "quit": 50, "hang": 50, "swallow": 100}
#: Handlers that stop the event loop for longer than the lease, once each.
BLOCKING: Mix = {"block": 150}
#: Handlers that end their process once: when they begin, before they end, while their ack is on its way.
EXITING: Mix = {"exit": 300, "die": 300, "die-acking": 150}
#: The exit codes of processes that their handlers end.
EXITED = 3, -signal.SIGKILL
#: Handlers that end their process whenever they are called.
POISONOUS: Mix = {"poison": 300}

#: Deeds that end among the dead letters.
DOOMED = frozenset({"fail", "reject", "poison"})


#: Messages from this number on are steps: those of one lane are handled in order, and kept once each.
STEPS, LANES = 1_000_000, 4
#: Handlers of steps only fail, and that in time to succeed.
_STEP_MIX: Mix = {"raise": 20}


class Payload(TypedDict):
    """A message: its number, its lane, what its handler does, and for how many milliseconds it works."""

    n: int
    lane: int
    do: str
    ms: float


def payload(seed: int, number: int, mix: Mix) -> Payload:
    """Return message `number` of the run."""
    draw = random.Random(f"{seed}/{number}")
    mix = mix if number < STEPS else _STEP_MIX
    # Each at a place of its own in every so many messages, so that even a short run meets all of them.
    deeds = [deed for deed, among in mix.items() if number % among == _place(seed, deed, among)]
    deed = draw.choice(deeds) if deeds else "work"
    return {"n": number, "lane": lane(number), "do": deed, "ms": round(draw.uniform(*WORK), 1)}


def lane(number: int) -> int:
    """Return the lane of a step; the next step of it has a number that is larger by LANES."""
    return number % LANES


def _place(seed: int, deed: str, among: int) -> int:
    return random.Random(f"{seed}/{deed}").randrange(among)


def is_doomed(seed: int, number: int, mix: Mix) -> bool:
    """Say whether message `number` must end among the dead letters."""
    return payload(seed, number, mix)["do"] in DOOMED
