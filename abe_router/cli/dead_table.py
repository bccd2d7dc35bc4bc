"""The table of groups of dead letters, which `dead groups` and the dry run of a replay print."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten

from abe_router.cli.output import print_message, print_table
from abe_router.operations.dead_groups import DeadGroup, DeadGroups
from abe_router.text import counted, format_time

#: Width of a reason in a table, in characters.
LONGEST_REASON = 100
#: Characters of a revision in a table.
SHORT_REVISION = 8


def print_groups(result: DeadGroups) -> None:
    """Write groups as a table; a further message of a group has a row of its own."""
    rows = [row for group in result.groups for row in _group_rows(group)]
    if rows:
        headings = ("group", "route", "count", "first seen", "last seen", "revisions", "sample", "fault")
        print_table(headings, rows, right={"count"})
    else:
        print_message("no dead letters")
    if result.others:
        print_message(f"{counted(result.others, 'more dead letter')} in further groups")


def _group_rows(group: DeadGroup) -> Iterator[tuple[str, ...]]:
    fault = f"{group.kind}: {group.place}" if group.place else group.kind
    shapes = group.shapes if group.kind != "invalid" else ()
    first, *others = [f"{fault}: {shapes[0]}", *shapes[1:]] if shapes else [fault]
    yield (
        group.group,
        group.route,
        f"{group.count:,}",
        format_time(group.first_seen),
        format_time(group.last_seen),
        " ".join(revision[:SHORT_REVISION] for revision in group.revisions if revision),
        group.sample,
        shortened_reason(first),
    )
    for text in others:
        yield (*[""] * 7, f"or: {shortened_reason(text)}")


def shortened_reason(text: str) -> str:
    """Return a reason that fits a table."""
    return text if len(text) <= LONGEST_REASON else shorten(text, LONGEST_REASON, placeholder="...")
