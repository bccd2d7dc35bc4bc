"""A way to break things, as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.testbed import Setup, Testbed

SQLITE, REDIS = "sqlite", "redis"

#: Does one thing to a running router, and returns when it is over: whether it was possible at that moment.
Injection = Callable[[Testbed], Awaitable[bool]]


@dataclass(frozen=True)
class Fault:
    """What is done, to which backends, and what is expected of it.

    `run` returns when the time of the testbed is over and everything is as it should be again. `doubles`
    says whether what was in hand may run twice; without it nothing may. With `exits` workers end of
    themselves, and `spills` says that they may do so with the same other messages in hand so often that
    these end among the dead letters too. `missing` says what it takes and is not there on this machine.
    """

    name: str
    about: str
    run: Callable[[Testbed], Awaitable[None]]
    backends: tuple[str, ...] = (SQLITE, REDIS)
    setup: Setup = field(default_factory=Setup)
    doubles: bool = False
    exits: bool = False
    spills: bool = False
    missing: Callable[[], str] = str


def repeated(inject: Injection, least: float, most: float) -> Callable[[Testbed], Awaitable[None]]:
    """Return a function that injects at random moments, `least` to `most` seconds apart.

    It returns when the time of the testbed is over and at least one injection was possible.
    """

    async def run(testbed: Testbed) -> None:
        async for _ in testbed.moments(least, most):
            testbed.count += await inject(testbed)

    return run
