"""`abe-router explain`: where one message would go, why, and where each failure would end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from abe_router.cli.access import read_table
from abe_router.cli.examples import as_command
from abe_router.cli.failure import FINDINGS, OK
from abe_router.cli.fate import Fate, fate
from abe_router.cli.options import config_option, headers_option, json_option, option
from abe_router.cli.payload import read_payload
from abe_router.cli.screen import say, show, show_json
from abe_router.errors import PublishError, Violation
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.message import Message, decode
from abe_router.messages.pattern import check_key, matches
from abe_router.runtime.publish import prepare
from abe_router.text import format_duration, printable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one schema says of the payload."""

    pattern: str
    schema: str
    violations: Sequence[Violation]


@dataclass(frozen=True, slots=True)
class KnownAgain:
    """The id of a message, and for how many seconds what comes with it is a duplicate."""

    id: str
    seconds: float

    def __str__(self) -> str:
        kept = f"with it, nothing more is published for {format_duration(self.seconds)}"
        return f"id {self.id}: {kept if self.seconds else 'not remembered'}"


def _known_again(deduplication: Deduplication | None, message: Message) -> KnownAgain | None:
    if deduplication is None or not deduplication.source:
        return None
    return KnownAgain(message.id, deduplication.window)


@as_command(
    "explain",
    """
    abe-router explain orders.created '{"total": 20}'
    """,
)
@click.argument("key")
@click.argument("payload", metavar="JSON|@FILE|-")
@config_option
@option("--allow-unrouted", is_flag=True, help="Accept keys that the routes file does not know.")
@headers_option
@json_option
def command(
    key: str, payload: str, routes: Path, allow_unrouted: bool, headers: Mapping[str, str], json: bool
) -> int:
    """Say where a message would go, and why.

    Shows what each schema says of the payload, by which id it would be known again, which routes match and
    why the others do not, when a failing message is tried again and where it ends. Nothing is published and
    no handler is imported. The exit code is 1 when publishing it would be refused.
    """
    table = read_table(routes)
    body = read_payload(payload)
    check_key(key)
    value = decode(body)
    refusal: PublishError | None = None
    known_again: KnownAgain | None = None
    try:
        message = prepare(table, key, body, headers=headers, allow_unrouted=allow_unrouted)
        known_again = _known_again(table.contract(key).deduplication, message)
    except PublishError as error:
        refusal = error
    verdicts = [
        Verdict(contract.pattern, contract.schema.name, contract.schema.violations(value))
        for contract in table.bindings
        if matches(contract.pattern, key)
    ]
    fates = [fate(route, key, value) for route in table.routes]
    if json:
        reason = str(refusal) if refusal else None
        show_json(
            {
                "key": key,
                "accepted": not refusal,
                "reason": reason,
                "known_again": known_again,
                "schemas": verdicts,
                "routes": fates,
            }
        )
    else:
        if known_again:
            show(printable(str(known_again)))
        for line in _lines(verdicts, fates):
            show(printable(line))
        say(f"refused: {printable(str(refusal))}" if refusal else "publishing it would be accepted")
    return FINDINGS if refusal else OK


def _lines(verdicts: Sequence[Verdict], fates: Sequence[Fate]) -> Iterator[str]:
    for verdict in verdicts:
        yield f"schema {verdict.schema} on {verdict.pattern}: {'broken' if verdict.violations else 'ok'}"
        for violation in verdict.violations:
            yield f"  {violation}"
    for one in sorted(fates, key=lambda f: not f.matches):
        head = "delivered" if one.delivered else "not delivered" if one.matches else "no match"
        yield f"route {one.route} ({one.handler}): {head}"
        for reason in one.why:
            yield f"  {reason}"
        for measure in one.how:
            yield f"  {measure}"
        if len(one.attempts) > 1:
            later = ", ".join(format_duration(seconds) for seconds in one.attempts[1:])
            yield f"  tried again at the latest after {later}"
        for failure, end in one.ends.items():
            yield f"  if {failure}: {end}"
