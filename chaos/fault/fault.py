"""A fault: what is injected, and what the row allows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.testbed import Setup, Testbed

SQLITE, REDIS = "sqlite", "redis"

#: Injects one fault and returns when it is over; returns whether that was possible at that moment.
Injection = Callable[[Testbed], Awaitable[bool]]


@dataclass(frozen=True)
class Fault:
    """One row of the table for each backend.

    Args:
        name: Its short name.
        about: Its text in the table.
        run: Injects it, and returns when the time of the testbed is over and everything works again.
        backends: The backends that have a row.
        setup: The setup of the testbed.
        duplicates: Whether attempts in flight may run twice.
        exits: Whether workers end by themselves.
        missing: Returns what this machine lacks for the row, or an empty string.

    """

    name: str
    about: str
    run: Callable[[Testbed], Awaitable[None]]
    backends: tuple[str, ...] = (SQLITE, REDIS)
    setup: Setup = field(default_factory=Setup)
    duplicates: bool = False
    exits: bool = False
    missing: Callable[[], str] = str


def repeated(inject: Injection, least: float, most: float) -> Callable[[Testbed], Awaitable[None]]:
    """Return a function that injects at random moments, `least` to `most` seconds apart.

    It returns when the time of the testbed is over and at least one injection was possible.
    """

    async def run(testbed: Testbed) -> None:
        async for _ in testbed.moments(least, most):
            if await inject(testbed):
                testbed.count += 1

    return run
