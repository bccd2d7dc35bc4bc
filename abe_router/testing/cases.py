"""Runs the cases of a routes file in memory, each by itself, and says what did not come as expected."""

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
from abe_router.routing.case import Case, Expectation, OutcomeKind, Position, Publication, shown
from abe_router.routing.policies import CAUSE
from abe_router.routing.table import RouteTable
from abe_router.testing.router import TestRouter

_WANTED: dict[OutcomeKind, str] = {
    "handled": "`{}` was to handle a message",
    "skipped": "`{}` was to skip a message",
    "dead": "a message was to end among the dead letters of `{}`",
    "emitted": "a message was to be emitted to `{}`",
    "rejected": "a message was to be rejected",
    "nothing": "`{}` was to get nothing",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What did not come as expected: where it is written, a sentence, and lines of difference."""

    position: Position
    message: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """How a case ended, and after how many seconds; it passed when nothing failed."""

    case: Case
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether everything came as expected."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class _Fact:
    """Something that happened to a message; `violations` are pointers and the keywords broken there."""

    what: OutcomeKind
    name: str
    payload: Any
    kind: str = ""
    error: str = ""
    violations: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        what = "got" if self.what == "nothing" else self.what
        why = f": {self.kind} {self.error}".replace(":  ", ": ") if self.error else ""
        return f"{what}: {shown(self.payload)}{why}"


async def run_case(table: RouteTable, case: Case, *, patience: float = 10.0) -> Result:
    """Run a case against the handlers of the table; never raises for what they do.

    A case whose messages are not at rest after `patience` seconds has failed.
    """
    began = time.perf_counter()
    facts: list[_Fact] = []
    stuck: list[Failure] = []
    router = TestRouter(table)
    async with router:
        for publication in case.publish:
            facts += await _publish(router, publication)
        try:
            await router.quiet(patience)
        except TimeoutError as error:
            stuck.append(Failure(case.position, str(error)))
        letters = [letter for route in table.by_name for letter in await router.dead(route)]
    facts += _happened(router, letters)
    failures = (*stuck, *_compared(case, facts))
    return Result(case, failures, time.perf_counter() - began)


async def _publish(router: TestRouter, said: Publication) -> Sequence[_Fact]:
    """Publish a message; return the fact of its refusal, if it is refused."""
    try:
        if said.unchecked:
            message = new_message(said.key, encode(said.payload), headers=said.headers, id=said.id)
            await router.backend.append([message])
        else:
            await router.publish(said.key, said.payload, headers=said.headers, id=said.id)
    except PublishError as error:
        broken = error.violations if isinstance(error, PayloadInvalid) else ()
        text = "; ".join(map(str, broken)) or str(error)
        pairs = tuple((each.pointer, each.keyword) for each in broken)
        return [_Fact("rejected", said.key, said.payload, error=text, violations=pairs)]
    return []


def _happened(router: TestRouter, letters: Sequence[DeadLetter]) -> Iterator[_Fact]:
    """Yield what happened after the messages were published, from the events and the dead letters."""
    # An id is one of its key: what a handler emits may have that of its cause.
    payloads = {(message.key, message.id): _payload(message) for message in router.backend.published}
    kept = {(each.route, each.message.key, each.message.id): each.reason for each in letters}
    for event in router.events:
        match event:
            case Handled(route, id, key):
                yield _Fact("handled", route, payloads[key, id])
            case Skipped(route, id, key):
                yield _Fact("skipped", route, payloads[key, id])
            case DeadLettered(route, id, key, kind=kind, error=error):
                reason = kept.get((route, key, id))
                broken = ((reason.pointer, reason.keyword),) if reason and reason.keyword else ()
                yield _Fact("dead", route, payloads[key, id], kind, error, broken)
    for message in router.backend.published:
        if CAUSE in message.headers:
            yield _Fact("emitted", message.key, _payload(message))
    for route in router.table.by_name:
        for call in router.calls(route):
            yield _Fact("nothing", route, _payload(call.message))


def _payload(message: Message) -> Any:
    return msgspec.json.decode(message.body)


def _compared(case: Case, facts: Sequence[_Fact]) -> Iterator[Failure]:
    """Yield what of the expectations is not met, and what is bad news that nobody expected."""
    wanted = [each for each in case.expect if each.what != "nothing"]
    met = _paired(wanted, facts)
    unmet = [expected for number, expected in enumerate(wanted) if number not in met]
    left = [fact for at, fact in enumerate(facts) if at not in met.values()]
    for expected in unmet:
        yield _unmet(expected, left, facts)
    for expected in case.expect:
        got = [fact for fact in facts if fact.what == "nothing" and fact.name == expected.name]
        if expected.what == "nothing" and got:
            yield Failure(expected.position, _WANTED["nothing"].format(expected.name), tuple(map(str, got)))
    for fact in left:
        told = any(_lacks(expected, fact) is not None for expected in unmet)
        if fact.what in {"dead", "rejected"} and not told:
            happened = "ended among the dead letters of" if fact.what == "dead" else "was rejected by"
            yield Failure(case.position, f"a message {happened} `{fact.name}` unexpectedly", (str(fact),))


def _paired(wanted: Sequence[Expectation], facts: Sequence[_Fact]) -> dict[int, int]:
    """Pair each expectation with a fact of its own, as many as can be; return the pairs, by index.

    Augmenting paths, as of Kuhn: what is expected vaguely yields to what only one fact meets.
    """
    holder: dict[int, int] = {}

    def place(number: int, tried: set[int]) -> bool:
        for at, fact in enumerate(facts):
            if at in tried or _lacks(wanted[number], fact) != []:
                continue
            tried.add(at)
            if at not in holder or place(holder[at], tried):
                holder[at] = number
                return True
        return False

    for number in range(len(wanted)):
        place(number, set())
    return {number: at for at, number in holder.items()}


def _lacks(expected: Expectation, fact: _Fact) -> list[str] | None:
    """Return how a fact differs from what is expected; None when it is about something else."""
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
        broken = "; ".join(f"{keyword} at {pointer or '(root)'}" for pointer, keyword in fact.violations)
        where = "" if expected.pointer is None else f" at {expected.pointer or '(root)'}"
        found.append(f"expected {expected.keyword or 'a fault'}{where}, found {broken or fact.error}")
    return found


def _unmet(expected: Expectation, left: Sequence[_Fact], facts: Sequence[_Fact]) -> Failure:
    """Tell of an expectation that nothing meets: by what comes closest, or by what happened instead."""
    message = _WANTED[expected.what].format(expected.name)
    for candidates in (left, facts):
        near = [lacks for fact in candidates if (lacks := _lacks(expected, fact)) is not None]
        if near:
            closest = min(near, key=len) or ["it does so for fewer messages than are expected"]
            return Failure(expected.position, message, tuple(closest))
    others = [fact for fact in facts if fact.name == expected.name]
    instead = [fact for fact in others if fact.what != "nothing"] or others
    return Failure(expected.position, message, tuple(map(str, instead)) or ("nothing of the kind happened",))
