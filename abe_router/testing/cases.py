"""Runs the cases of a routes file in memory, and compares the outcomes with the expectations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from abe_router.backend import DeadLetter
from abe_router.errors import PayloadInvalid, PublishError
from abe_router.messages.message import Message, encode, new_message
from abe_router.observe.events import DeadLettered, Handled, Skipped
from abe_router.routing.case import Case, Expectation, FilePosition, OutcomeKind, Publication, shown
from abe_router.routing.policies import CAUSE
from abe_router.routing.table import RouteTable
from abe_router.testing.router import TestRouter

_EXPECTED: dict[OutcomeKind, str] = {
    "handled": "expected `{}` to handle a message",
    "skipped": "expected `{}` to skip a message",
    "dead": "expected a dead letter of `{}`",
    "emitted": "expected a message to be emitted to `{}`",
    "rejected": "expected a message to be rejected",
    "nothing": "expected `{}` to get nothing",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that is not met: its position in the file, a sentence, and the differences."""

    position: FilePosition
    message: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a case, and how many seconds it took."""

    case: Case
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all expectations are met."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class _Fact:
    """An outcome of a message; `violations` are pairs of a pointer and the violated keyword."""

    what: OutcomeKind
    name: str
    payload: Any
    kind: str = ""
    error: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    traceback: str = ""

    @property
    def details(self) -> tuple[str, ...]:
        """The fact in one line, and the traceback of the handler's error below it."""
        return (str(self), *self.traceback.splitlines())

    def __str__(self) -> str:
        what = "got" if self.what == "nothing" else self.what
        why = f": {self.kind} {self.error}".replace(":  ", ": ") if self.error else ""
        return f"{what}: {shown(self.payload)}{why}"


async def run_case(table: RouteTable, case: Case, *, patience: float = 10.0) -> Result:
    """Run a case with the handlers of the table, whose errors are never raised.

    The case fails if a message is still in progress after `patience` seconds.
    """
    began = time.perf_counter()
    facts: list[_Fact] = []
    timeout: list[Failure] = []
    router = TestRouter(table)
    async with router:
        for publication in case.publish:
            facts += await _publish(router, publication)
        try:
            await router.quiet(patience)
        except TimeoutError as error:
            timeout.append(Failure(case.position, str(error)))
        dead_letters = [dead for route in table.by_name for dead in await router.dead(route)]
    facts += _outcomes(router, dead_letters)
    failures = (*timeout, *_compared(case, facts))
    return Result(case, failures, time.perf_counter() - began)


async def _publish(router: TestRouter, publication: Publication) -> Sequence[_Fact]:
    """Publish a message; return its rejection, if it is rejected."""
    try:
        if publication.unchecked:
            message = new_message(
                publication.key, encode(publication.payload), headers=publication.headers, id=publication.id
            )
            await router.backend.append([message])
        else:
            await router.publish(
                publication.key, publication.payload, headers=publication.headers, id=publication.id
            )
    except PublishError as error:
        violations = error.violations if isinstance(error, PayloadInvalid) else ()
        text = "; ".join(map(str, violations)) or str(error)
        pairs = tuple((each.pointer, each.keyword) for each in violations)
        return [_Fact("rejected", publication.key, publication.payload, error=text, violations=pairs)]
    return []


def _outcomes(router: TestRouter, dead_letters: Sequence[DeadLetter]) -> Iterator[_Fact]:
    """Yield the outcomes of all messages, from the events and the dead letters."""
    # An output may have the same id as its cause, under another key.
    payloads = {(message.key, message.id): _payload(message) for message in router.backend.published}
    reasons = {(each.route, each.message.key, each.message.id): each.reason for each in dead_letters}
    for event in router.events:
        match event:
            case Handled(route, id, key):
                yield _Fact("handled", route, payloads[key, id])
            case Skipped(route, id, key):
                yield _Fact("skipped", route, payloads[key, id])
            case DeadLettered(route, id, key, kind=kind, error=error, traceback=traceback):
                reason = reasons.get((route, key, id))
                violations = ((reason.pointer, reason.keyword),) if reason and reason.keyword else ()
                yield _Fact("dead", route, payloads[key, id], kind, error, violations, traceback)
    for message in router.backend.published:
        if CAUSE in message.headers:
            yield _Fact("emitted", message.key, _payload(message))
    for route in router.table.by_name:
        for call in router.calls(route):
            yield _Fact("nothing", route, _payload(call.message))


def _payload(message: Message) -> Any:
    return msgspec.json.decode(message.body)


def _compared(case: Case, facts: Sequence[_Fact]) -> Iterator[Failure]:
    """Yield the expectations that are not met, and unexpected rejections and dead letters."""
    wanted = [each for each in case.expect if each.what != "nothing"]
    pairs = _paired(wanted, facts)
    unmet = [expected for number, expected in enumerate(wanted) if number not in pairs]
    left = [fact for at, fact in enumerate(facts) if at not in pairs.values()]
    for expected in unmet:
        yield _unmet(expected, left, facts)
    for expected in case.expect:
        got = [fact for fact in facts if fact.what == "nothing" and fact.name == expected.name]
        if expected.what == "nothing" and got:
            yield Failure(expected.position, _EXPECTED["nothing"].format(expected.name), tuple(map(str, got)))
    for fact in left:
        reported = any(_lacks(expected, fact) is not None for expected in unmet)
        if fact.what in {"dead", "rejected"} and not reported:
            what = "dead letter of" if fact.what == "dead" else "rejection by"
            yield Failure(case.position, f"unexpected {what} `{fact.name}`", fact.details)


def _paired(wanted: Sequence[Expectation], facts: Sequence[_Fact]) -> dict[int, int]:
    """Pair as many expectations as possible, each with a fact of its own; return the pairs, by index.

    This is a maximum bipartite matching by augmenting paths (Kuhn's algorithm): an expectation that several
    facts meet leaves a fact to another that only this fact meets.
    """
    owners: dict[int, int] = {}

    def assign(number: int, tried: set[int]) -> bool:
        for at, fact in enumerate(facts):
            if at in tried or _lacks(wanted[number], fact) != []:
                continue
            tried.add(at)
            if at not in owners or assign(owners[at], tried):
                owners[at] = number
                return True
        return False

    for number in range(len(wanted)):
        assign(number, set())
    return {number: at for at, number in owners.items()}


def _lacks(expected: Expectation, fact: _Fact) -> list[str] | None:
    """Return how a fact differs from the expectation; None if it is about something else."""
    if fact.what != expected.what or (expected.name is not None and fact.name != expected.name):
        return None
    found: list[str] = []
    if expected.payload is not None:
        found += expected.payload.differences(fact.payload)
    if expected.kind is not None and expected.kind != fact.kind:
        found.append(f"expected kind {expected.kind}, found {fact.kind}: {fact.error}")
    if expected.error is not None and expected.error not in fact.error:
        found.append(f"expected {shown(expected.error)} in the error, found {shown(fact.error)}")
    if (expected.pointer is not None or expected.keyword is not None) and not any(
        expected.pointer in {None, pointer} and expected.keyword in {None, keyword}
        for pointer, keyword in fact.violations
    ):
        violated = "; ".join(f"{keyword} at {pointer or '(root)'}" for pointer, keyword in fact.violations)
        where = "" if expected.pointer is None else f" at {expected.pointer or '(root)'}"
        found.append(f"expected {expected.keyword or 'a violation'}{where}, found {violated or fact.error}")
    return found


def _unmet(expected: Expectation, left: Sequence[_Fact], facts: Sequence[_Fact]) -> Failure:
    """Describe an expectation that is not met: by the closest fact, or by what happened instead."""
    message = _EXPECTED[expected.what].format(expected.name)
    for candidates in (left, facts):
        near = [lacks for fact in candidates if (lacks := _lacks(expected, fact)) is not None]
        if near:
            closest = min(near, key=len) or ["it did so for fewer messages than expected"]
            return Failure(expected.position, message, tuple(closest))
    others = [fact for fact in facts if fact.name == expected.name]
    instead = [fact for fact in others if fact.what != "nothing"] or others
    return Failure(
        expected.position,
        message,
        tuple(line for fact in instead for line in fact.details) or ("no such event",),
    )
