"""What handlers do to the router: the messages tell them."""

from __future__ import annotations

from chaos.fault.fault import Fault
from chaos.plan import BLOCKING, EXITING, FAILING, POISONOUS
from chaos.stage import LONG, Setup, Stage


async def misbehave(stage: Stage) -> None:
    """Let the messages have their way."""
    await stage.last()
    stage.count = stage.misdeeds()


FAULTS = (
    Fault("raise", "handlers raise, reject, hang", misbehave, setup=Setup(lease=LONG, mix=FAILING)),
    Fault("block", "handlers block the loop", misbehave, setup=Setup(mix=BLOCKING), doubles=True),
    Fault(
        "exit",
        "handlers end the process",
        misbehave,
        setup=Setup(lease=1.0, mix=EXITING, workers=3),
        doubles=True,
        exits=True,
    ),
    Fault(
        "poison",
        "messages that always kill",
        misbehave,
        setup=Setup(lease=1.0, max_deliveries=6, mix=POISONOUS, workers=3),
        doubles=True,
        exits=True,
        spills=True,
    ),
)
