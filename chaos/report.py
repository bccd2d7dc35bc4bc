"""The table, and what went wrong below it."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.row import Row

_HEADINGS = (
    "fault",
    "backend",
    "messages",
    "faults",
    "lost",
    "duplicates",
    "bound",
    "recovery",
    "verdict",
)
_LEFT = {"fault", "backend", "verdict"}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, several seeds of a fault as one.

    What a backend forgot, and may forget, is in brackets beside what was lost.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.fault.name, row.backend), []).append(row)
    cells = [_HEADINGS, *(_cells(group) for group in groups.values())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if heading in _LEFT else text.rjust(width)
            for heading, text, width in zip(_HEADINGS, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def remarks(rows: Sequence[Row]) -> str:
    """Return what is no fault, and worth knowing."""
    told = []
    for row in rows:
        if row.finding.forgotten:
            told.append(
                f"{row.fault.about}, {row.backend}: the backend forgot {row.finding.forgotten:,} handlings"
            )
        if row.finding.wrongly_dead and row.fault.spills:
            count = len(row.finding.wrongly_dead)
            told.append(
                f"{row.fault.about}, {row.backend}: {count:,} others ended among the dead letters with them"
            )
    return "\n".join(told)


def complaints(rows: Sequence[Row], seconds: float) -> str:
    """Return what broke the promise, row by row, each with the command that plays it again.

    `seconds` is how long the faults went on.
    """
    told = []
    for row in rows:
        if row.wrong:
            told.append(f"{row.fault.name} on {row.backend}, kept in {row.folder}")
            told += [f"  {line}" for text in row.wrong for line in text.splitlines()]
            again = (
                f"--fault {row.fault.name} --backend {row.backend} --seed {row.seed} --seconds {seconds:g}"
            )
            told.append(f"  again: python -m chaos {again}")
    return "\n".join(told)


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    findings = [row.finding for row in rows]
    lost = f"{sum(len(finding.lost) for finding in findings):,}"
    if forgotten := sum(finding.forgotten for finding in findings):
        lost += f" ({forgotten:,})"
    return (
        rows[0].fault.about,
        rows[0].backend,
        f"{sum(finding.accepted for finding in findings):,}",
        f"{sum(row.faults for row in rows):,}",
        lost,
        f"{sum(finding.duplicates for finding in findings):,}",
        f"{sum(finding.bound for finding in findings):,}" if rows[0].fault.doubles else "0",
        f"{recovery:.1f} s" if (recovery := max(row.recovery for row in rows)) else "",
        "BROKEN" if any(row.wrong for row in rows) else "held",
    )
