"""Faults of handlers; each message says what its handler does."""

from __future__ import annotations

import asyncio

from chaos.fault.fault import Fault
from chaos.plan import BLOCKING, EXITING, FAILING, POISONOUS
from chaos.testbed import LONG, Setup, Testbed


async def handlers_act(testbed: Testbed) -> None:
    """Wait while the handlers do what the messages say, until there was each of the actions."""
    await testbed.last()
    while testbed.setup.mix.keys() - (actions := testbed.actions()).keys():
        await asyncio.sleep(0.1)
    testbed.count = actions.total()


FAULTS = (
    Fault("raise", "handlers raise, reject, hang", handlers_act, setup=Setup(lease=LONG, mix=FAILING)),
    # A thread renews the leases within the timeout, so nothing may run twice.
    Fault(
        "block",
        "handlers block the loop",
        handlers_act,
        setup=Setup(lease=1.0, timeout=10.0, mix=BLOCKING),
    ),
    Fault(
        "exit",
        "handlers end the process",
        handlers_act,
        setup=Setup(lease=1.0, mix=EXITING, workers=3),
        duplicates=True,
        exits=True,
    ),
    # Two planned failures of a step count as deliveries too, and so does each poison that begins beside it.
    Fault(
        "poison",
        "messages that always kill",
        handlers_act,
        setup=Setup(lease=1.0, max_deliveries=8, mix=POISONOUS, workers=3),
        duplicates=True,
        exits=True,
    ),
)
