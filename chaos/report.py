"""The table, the notes below it, and the violations."""

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
    """Return the rows as text; the seeds of one fault are added up.

    Losses that the fault allows are in brackets.
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


def notes(rows: Sequence[Row]) -> str:
    """Return facts that violate nothing."""
    return "\n".join(
        f"{row.fault.about}, {row.backend}: the backend forgot {row.verdict.forgotten:,} handlings"
        for row in rows
        if row.verdict.forgotten
    )


def violations(rows: Sequence[Row], seconds: float) -> str:
    """Return the violations of each row, with the command that repeats it.

    `seconds` is the time for faults in each row.
    """
    lines = []
    for row in rows:
        if row.broken:
            lines.append(f"{row.fault.name} on {row.backend}, kept in {row.folder}")
            lines += [f"  {line}" for text in row.broken for line in text.splitlines()]
            again = (
                f"--fault {row.fault.name} --backend {row.backend} --seed {row.seed} --seconds {seconds:g}"
            )
            lines.append(f"  again: python -m chaos {again}")
    return "\n".join(lines)


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    verdicts = [row.verdict for row in rows]
    lost = f"{sum(len(verdict.lost) for verdict in verdicts):,}"
    if forgotten := sum(verdict.forgotten for verdict in verdicts):
        lost += f" ({forgotten:,})"
    return (
        rows[0].fault.about,
        rows[0].backend,
        f"{sum(verdict.accepted for verdict in verdicts):,}",
        f"{sum(row.faults for row in rows):,}",
        lost,
        f"{sum(verdict.duplicates for verdict in verdicts):,}",
        f"{sum(verdict.bound for verdict in verdicts):,}" if rows[0].fault.duplicates else "0",
        f"{recovery:.1f} s" if (recovery := max(row.recovery for row in rows)) else "",
        "BROKEN" if any(row.broken for row in rows) else "held",
    )
