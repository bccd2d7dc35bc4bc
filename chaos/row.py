"""One row of the table: a fault on a backend, from an empty folder to the verdict."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos.checker import Finding, some
from chaos.fault import Fault
from chaos.stage import Stage

#: How long a row may take beyond the time for faults, in seconds; one that hangs is broken too.
PATIENCE = 120.0


@dataclass(frozen=True)
class Row:
    """A fault, a backend, a seed, and what came of it; `faults` is how often it was done.

    `recovery` is in seconds. `wrong` says what broke the promise, nothing if it held; `folder` is where
    everything is that was noted, None if it was thrown away.
    """

    fault: Fault
    backend: str
    seed: int
    faults: int = 0
    finding: Finding = field(default_factory=Finding)
    recovery: float = 0.0
    wrong: tuple[str, ...] = ()
    folder: Path | None = None


async def play(fault: Fault, backend: str, *, seed: int, seconds: float, program: Path | None = None) -> Row:
    """Play a row; its folder is kept when the promise did not hold."""
    folder = tempfile.mkdtemp(prefix=f"chaos-{fault.name}-{backend}-")
    row = Row(fault, backend, seed, folder=Path(folder))
    setup = replace(fault.setup, program=program or fault.setup.program)
    try:
        async with (
            asyncio.timeout(seconds + PATIENCE),
            Stage(setup, backend, seed=seed, seconds=seconds, folder=Path(folder)) as stage,
        ):
            await fault.run(stage)
            finding = await stage.finish()
            recovery = max([finding.recovery, *stage.recoveries])
            row = replace(row, faults=stage.count, finding=finding, recovery=recovery)
            row = replace(row, wrong=tuple(_wrong(row, stage)))
    except Exception:  # noqa: BLE001  the other rows are worth having
        row = replace(row, wrong=(traceback.format_exc().strip(),))
    if not row.wrong:
        await asyncio.to_thread(shutil.rmtree, folder)
        row = replace(row, folder=None)
    return row


def _wrong(row: Row, stage: Stage) -> list[str]:
    """Return what broke the promise."""
    wrong = [*row.finding.faults, *stage.complaints]
    if row.finding.duplicates and not row.fault.doubles:
        wrong.append(f"{row.finding.duplicates} handled twice, though no worker died")
    if (dead := row.finding.wrongly_dead) and not row.fault.spills:
        wrong.append(f"{len(dead)} dead without a reason: {some(dead)}")
    # What else the stage took for a recovery, a drain or an edit, it has judged by itself.
    if (took := row.finding.recovery) > (limit := stage.waits):
        wrong.append(f"it took {took:.1f} s to recover, of {limit:g} s")
    if (crashed := stage.crew.crashed()) and not row.fault.exits:
        wrong.append(f"{len(crashed)} workers ended of themselves; see {crashed[0].log}")
    if not row.faults and row.fault.name != "none":
        wrong.append("no fault was injected")
    if not row.finding.accepted:
        wrong.append("nothing was accepted")
    return wrong
