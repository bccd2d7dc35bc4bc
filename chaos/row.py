"""One row of the table: runs a fault on a backend, from an empty folder to the verdict."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos.checker import Verdict, sample_of
from chaos.fault import Fault
from chaos.testbed import Testbed

#: Longest time for a row beyond the time for faults, in seconds. A row that takes longer is broken.
PATIENCE = 120.0


@dataclass(frozen=True)
class Row:
    """The result of a fault on a backend with a seed; `faults` is the number of injections.

    `recovery` is in seconds that the machine gave. `wrong` lists the violations of the promise, `late` the
    limits of time that were missed. `folder` holds all records of the run; it is None after the folder was
    deleted.
    """

    fault: Fault
    backend: str
    seed: int
    faults: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    recovery: float = 0.0
    wrong: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def broken(self) -> tuple[str, ...]:
        """All that broke it."""
        return self.wrong + self.late


async def run_row(
    fault: Fault, backend: str, *, seed: int, seconds: float, program: Path | None = None
) -> Row:
    """Run a row; keep its folder if the promise did not hold."""
    folder = tempfile.mkdtemp(prefix=f"chaos-{fault.name}-{backend}-")
    row = Row(fault, backend, seed, folder=Path(folder))
    setup = replace(fault.setup, program=program or fault.setup.program)
    try:
        async with (
            asyncio.timeout(seconds + PATIENCE),
            Testbed(setup, backend, seed=seed, seconds=seconds, folder=Path(folder)) as testbed,
        ):
            await fault.run(testbed)
            verdict = await testbed.finish()
            recovery = max([verdict.recovery, *testbed.recoveries])
            row = replace(row, faults=testbed.count, verdict=verdict, recovery=recovery)
            row = replace(row, wrong=tuple(_wrong(row, testbed)), late=tuple(_late(row, testbed)))
    except Exception:  # noqa: BLE001  the other rows go on
        row = replace(row, wrong=(traceback.format_exc().strip(),))
    if not row.broken:
        await asyncio.to_thread(shutil.rmtree, folder)
        row = replace(row, folder=None)
    return row


def _wrong(row: Row, testbed: Testbed) -> list[str]:
    """Return the violations of the promise."""
    wrong = [*row.verdict.violations, *testbed.violations]
    if row.verdict.duplicates and not row.fault.duplicates:
        wrong.append(f"{row.verdict.duplicates} handled twice, although no worker died")
    if dead := row.verdict.wrongly_dead_lettered:
        wrong.append(f"{len(dead)} dead letters without a reason: {sample_of(dead)}")
    if (crashed := testbed.workers.crashed()) and not row.fault.exits:
        wrong.append(f"{len(crashed)} workers ended by themselves; see {crashed[0].log}")
    if not row.faults and row.fault.name != "none":
        wrong.append("no fault was injected")
    if not row.verdict.accepted:
        wrong.append("nothing was accepted")
    return wrong


def _late(row: Row, testbed: Testbed) -> list[str]:
    """Return the limits of time that were missed."""
    late = [*testbed.late]  # of drains and edits
    if (took := row.verdict.recovery) > (limit := testbed.waits):
        late.append(f"recovery took {took:.1f} s, the limit is {limit:g} s")
    return late
