"""Compares the records of a run with the promise, without asking the backend.

The records are: the ledger of accepted messages and of handler calls; the log of each worker, which has an
entry for each stored outcome; the dead letters; and the faults that were injected. An attempt is in flight
from the start of its handler until its outcome is logged, or until the handler starts again. An attempt that
was in flight on a worker when a fault hit that worker may run again. No other attempt may.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from chaos.ledger import ACCEPTED, ASKED, ENDED, STARTED, Entry
from chaos.plan import ORDERING_KEYS, STEPS

#: The groups that get published messages, and the group that gets what the first of them emits.
GROUPS, EMITTER, FOLLOWER = ("loop", "thread"), "loop", "follow"
#: The group that handles the steps of each ordering key in order.
ORDERED = "ordered"
#: The number of a message that the ledger does not contain.
UNPUBLISHED = -1
#: Outcomes after which a message is not delivered again.
HANDLED, DEAD_LETTERED = "handled", "dead_lettered"
#: Highest number of handlers of one group that a worker runs at the same time.
CONCURRENCY = 5
#: Precision of the times of outcomes, in seconds: logs round down to milliseconds.
LOG_PRECISION = 0.001
#: Time after the loss of a group in which workers may still start its messages and log its outcomes, in
#: seconds.
GROUP_GRACE = 1.0
#: Time after a freeze in which a worker may start what it was given before, or what lay in its socket
#: meanwhile, in seconds. Their leases have ended on the server, and an answer does not tell when.
THAW = 0.5


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault that hit one worker, all workers (`pid` is None) or the data; times are as in the ledger.

    Messages accepted between `loses` and `end` may be lost, and so may the messages whose numbers are in
    `taken`. Messages settled between `undoes` and `end` may be delivered again, and so may those in
    `replayed`, which are pairs of message id and group.
    """

    begin: float
    end: float
    pid: int | None = None
    loses: float = math.inf
    undoes: float = math.inf
    taken: frozenset[int] = frozenset()
    replayed: frozenset[tuple[str, str]] = frozenset()

    def replays(self, message: str, group: str) -> float:
        """Return the time until which a settled message of a group may be delivered again."""
        return self.end + GROUP_GRACE if (message, group) in self.replayed else -math.inf


class LogEntry(NamedTuple):
    """An entry in the log of a worker: an outcome was stored."""

    kind: str
    message: str
    group: str
    attempt: int
    pid: int
    at: float


@dataclass(frozen=True)
class Verdict:
    """The result of a check. Pairs consist of a message number and a group."""

    accepted: int = 0
    #: Accepted, but neither handled nor a dead letter. `forgotten` counts the losses that a fault allows.
    lost: Sequence[tuple[int, str]] = ()
    forgotten: int = 0
    #: How often a handler started again for the same attempt, and how often that was allowed: the attempts
    #: that were in flight when a fault hit, without a logged outcome.
    duplicates: int = 0
    bound: int = 0
    #: The duplicates that no fault explains.
    unexplained: Sequence[tuple[int, str]] = ()
    #: Steps that started before the previous step of their ordering key was handled.
    out_of_order: Sequence[tuple[int, str]] = ()
    #: Emitted more than once by one message.
    emitted_twice: Sequence[tuple[int, str]] = ()
    #: Settled finally more than once; and settled by a worker after another worker had started the same
    #: attempt, which the backend should have refused.
    settled_twice: Sequence[tuple[int, str]] = ()
    settled_late: Sequence[tuple[int, str]] = ()
    #: Dead letters without a reason, and messages that should be dead letters but were handled.
    wrongly_dead_lettered: Sequence[tuple[int, str]] = ()
    #: Handled, but never published.
    unknown: Sequence[tuple[int, str]] = ()
    #: Time from the last fault until the last affected attempt started again or was settled, in seconds that
    #: the machine gave.
    recovery: float = 0.0

    @property
    def violations(self) -> list[str]:
        """The violations as text, without `wrongly_dead_lettered`."""
        kinds = {
            "lost": self.lost,
            "duplicated without a fault": self.unexplained,
            "out of order": self.out_of_order,
            "emitted twice": self.emitted_twice,
            "settled twice": self.settled_twice,
            "settled after the lease was lost": self.settled_late,
            "handled but never published": self.unknown,
        }
        return [f"{len(them)} {what}: {sample_of(them)}" for what, them in kinds.items() if them]


def check(
    entries: Iterable[Entry],
    log: Iterable[LogEntry],
    *,
    dead: Collection[tuple[str, str]] = (),
    expected_dead: Collection[int] = (),
    injected: Sequence[InjectedFault] = (),
    numbers: Mapping[str, int] | None = None,
    worker_from: Callable[[float], float] = float,
    given: Callable[[float, float], float] = lambda begin, end: end - begin,
) -> Verdict:
    """Check a run.

    Args:
        entries: The ledger.
        log: The outcomes that the workers logged.
        dead: Message id and group of each dead letter.
        expected_dead: Numbers of the messages that must become dead letters.
        injected: The faults, in any order.
        numbers: Message numbers by id, for dead letters without a ledger entry.
        worker_from: Returns the first moment, from a given time on, at which a worker ran.
        given: Returns how much of the time between two moments the machine gave, in seconds.

    """
    run = _Run(log, dead, injected, worker_from, given, numbers=dict(numbers or {}))
    for entry in sorted(entries, key=lambda entry: entry.at):
        run.see(entry)
    run.correct_late_starts()
    return run.verdict(frozenset(expected_dead))


def waiting(
    entries: Iterable[Entry], dead: Collection[tuple[str, str]], injected: Sequence[InjectedFault]
) -> Sequence[tuple[int, str]]:
    """Return what has been neither handled nor dead-lettered so far, in a fraction of the time of `check`.

    At the end of a run, these pairs are the `lost` ones of its verdict.
    """
    run = _Run((), dead, injected)
    for entry in entries:
        run.see(entry)
    return run.missing()[0]


#: A message id, a group, the number of the attempt.
_Attempt = tuple[str, str, int]


@dataclass
class _Run:
    """The records of a run, indexed."""

    log: Iterable[LogEntry]
    dead: Collection[tuple[str, str]]
    injected: Sequence[InjectedFault]
    worker_from: Callable[[float], float] = float
    given: Callable[[float, float], float] = lambda begin, end: end - begin
    asked: dict[int, float] = field(default_factory=dict)
    accepted: dict[int, float] = field(default_factory=dict)
    ended: set[tuple[int, str]] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    starts: Mapping[_Attempt, list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._ended_at: dict[tuple[object, ...], float] = {}
        self._began_at: dict[int, float] = {}
        self._stored = defaultdict[_Attempt, list[LogEntry]](list)
        self._as_recorded: dict[_Attempt, list[Entry]] = {}
        for outcome in sorted(self.log, key=lambda outcome: outcome.at):
            self._stored[outcome.message, outcome.group, outcome.attempt].append(outcome)

    def see(self, entry: Entry) -> None:
        """Add an entry; entries must be sorted by time."""
        self.numbers.setdefault(entry.message, entry.number)
        if entry.kind == ASKED:
            self.asked[entry.number] = entry.at
        elif entry.kind == ACCEPTED:
            self.accepted[entry.number] = entry.at
        elif entry.kind == STARTED:
            self.starts[entry.message, entry.group, entry.attempt].append(entry)
            if entry.group == ORDERED:
                self._began_at.setdefault(entry.number, entry.at)
        elif entry.kind == ENDED:
            self.ended.add((entry.number, entry.group))
            self._ended_at.setdefault(entry[2:6], entry.at)

    def correct_late_starts(self) -> None:
        """Move starts that a frozen worker recorded late to the time of the freeze, one for each free slot.

        A worker may be frozen after it called a handler and before that handler recorded its start. The
        ledger then has the start after the freeze. The same entry appears when the handler really starts
        after the freeze. The ledger does not distinguish the two, so a violation counts only if it follows
        from both.
        """
        for a in self.injected:
            if a.pid is None or a.begin == a.end:
                continue
            own = [start for starts in self.starts.values() for start in starts if start.pid == a.pid]
            for group in {start.group for start in own}:
                before = [start for start in own if start.group == group and start.at <= a.begin]
                running = sum(self._ended_at.get(start[2:6], math.inf) > a.begin for start in before)
                late = [start for start in own if start.group == group and a.begin < start.at <= a.end]
                for start in late[: max(0, CONCURRENCY - running)]:
                    attempt = start.message, group, start.attempt
                    starts = self.starts[attempt]
                    self._as_recorded.setdefault(attempt, list(starts))
                    starts[starts.index(start)] = start._replace(at=a.begin)
                    starts.sort(key=lambda start: start.at)

    def verdict(self, expected_dead: frozenset[int]) -> Verdict:
        """Return the result."""
        dead = self._dead_pairs()
        lost, forgotten = self.missing()
        duplicates, bound, unexplained, recovery = self._duplicates()
        seen = {(self.numbers[message], group) for message, group, _ in self.starts}
        return Verdict(
            accepted=len(self.accepted),
            lost=lost,
            forgotten=forgotten,
            duplicates=duplicates,
            bound=bound,
            unexplained=unexplained,
            out_of_order=self._out_of_order(),
            emitted_twice=self._emitted_twice(),
            settled_twice=self._settled_twice(),
            settled_late=self._settled_late(),
            wrongly_dead_lettered=sorted(
                {pair for pair in dead if pair[0] not in expected_dead or pair[1] == FOLLOWER}
                | {pair for pair in seen & self.ended if pair[0] in expected_dead and pair[1] in GROUPS}
            ),
            unknown=[pair for pair in seen if pair[0] not in self.asked],
            recovery=recovery,
        )

    def missing(self) -> tuple[list[tuple[int, str]], int]:
        """Return what is lost, and how much else a fault may have removed that never ended."""
        dead = self._dead_pairs()
        missing = [pair for pair in self._expected(dead) if pair not in self.ended and pair not in dead]
        excused = {pair for pair in missing if self._may_be_lost(pair[0], self.accepted[pair[0]])}
        return [pair for pair in missing if pair not in excused], len(excused)

    def _dead_pairs(self) -> set[tuple[int, str]]:
        return {(self.numbers.get(message, UNPUBLISHED), group) for message, group in self.dead}

    def _may_be_lost(self, number: int, accepted_at: float) -> bool:
        """Return whether a fault may have removed the message, or the memory that it was accepted."""
        asked_at = self.asked.get(number, accepted_at)
        return any(number in a.taken or (a.loses <= accepted_at and asked_at <= a.end) for a in self.injected)

    def _may_come_again(self, message: str, group: str, settled_at: float) -> bool:
        """Return whether the backend may have forgotten that a message was settled."""
        return any(
            a.undoes - LOG_PRECISION <= settled_at <= a.end or settled_at <= a.replays(message, group)
            for a in self.injected
        )

    def _expected(self, dead: Collection[tuple[int, str]]) -> Iterable[tuple[int, str]]:
        """Yield the pairs that must be handled: accepted messages in each group, and emitted messages."""
        for number in self.accepted:
            for group in GROUPS if number < STEPS else (ORDERED,):
                yield number, group
            if (number, EMITTER) in self.ended and (number, EMITTER) not in dead:
                yield number, FOLLOWER

    def _out_of_order(self) -> list[tuple[int, str]]:
        """Return the steps that started too early."""
        done = dict[int, float]()
        for attempt, starts in self.starts.items():
            for start, following in zip_longest(starts, starts[1:]):
                outcome = self._outcome(attempt, start, following)
                ended = self._ended_at.get(start[2:6], math.inf)
                if attempt[1] == ORDERED and outcome and outcome.kind == HANDLED:
                    done[start.number] = min(done.get(start.number, math.inf), ended)
        early = [n for n, at in self._began_at.items() if at < done.get(n - ORDERING_KEYS, 0.0)]
        return [(number, ORDERED) for number in sorted(early) if number - ORDERING_KEYS in self.accepted]

    def _emitted_twice(self) -> list[tuple[int, str]]:
        """Return the messages whose output the follower received more than once."""
        copies = defaultdict[int, set[str]](set)
        for message, group, _ in self.starts:
            if group == FOLLOWER:
                copies[self.numbers[message]].add(message)
        several = {number for number, messages in copies.items() if len(messages) > 1}
        for (message, group, _), logged in self._stored.items():
            if group == EMITTER and self._may_come_again(message, group, logged[0].at):
                several.discard(self.numbers.get(message, UNPUBLISHED))
        return [(number, FOLLOWER) for number in sorted(several)]

    def _settled_twice(self) -> list[tuple[int, str]]:
        """Return the messages that were settled finally more than once."""
        final = defaultdict[tuple[str, str], list[LogEntry]](list)
        for (message, group, _), logged in self._stored.items():
            final[message, group] += [
                outcome for outcome in logged if outcome.kind in (HANDLED, DEAD_LETTERED)
            ]
        return [
            (self.numbers.get(message, UNPUBLISHED), group)
            for (message, group), logged in final.items()
            if len(logged) > 1
            and not self._may_come_again(message, group, min(outcome.at for outcome in logged))
        ]

    def _settled_late(self) -> list[tuple[int, str]]:
        """Return the messages that a worker settled after another worker had started them."""
        late = []
        for attempt, starts in self.starts.items():
            for outcome in self._stored.get(attempt, ()):
                is_late = all(
                    _is_late(outcome, each) for each in (starts, self._as_recorded.get(attempt, starts))
                )
                if is_late and not self._may_come_again(*attempt[:2], outcome.at):
                    late.append((starts[0].number, attempt[1]))
        return late

    def _duplicates(self) -> tuple[int, int, list[tuple[int, str]], float]:
        """Return the number of duplicates, the bound, the unexplained ones, and the longest recovery."""
        duplicates, bound, recovery = 0, 0, 0.0
        last = self.worker_from(max((fault.end for fault in self.injected), default=0.0))
        unexplained = list[tuple[int, str]]()
        for attempt, starts in self.starts.items():
            duplicates += len(starts) - 1
            checks = [
                self._repeats(attempt, each) for each in (starts, self._as_recorded.get(attempt, starts))
            ]
            allowed, unexplained_here, ends = min(checks, key=lambda found: len(found[1]))
            bound += allowed
            unexplained += unexplained_here
            recovery = max([recovery, *(self.given(last, end) for end in ends if end > last)])
        return duplicates, bound, unexplained, recovery

    def _repeats(
        self, attempt: _Attempt, starts: Sequence[Entry]
    ) -> tuple[int, list[tuple[int, str]], list[float]]:
        """Check the starts of one attempt.

        Return how many of them may be followed by another start, the duplicates that no fault explains, and
        when each affected start was started again or settled.
        """
        allowed, unexplained, ends = 0, [], []
        for start, following in zip_longest(starts, starts[1:]):
            outcome = self._outcome(attempt, start, following)
            until = min(following.at if following else math.inf, outcome.at if outcome else math.inf)
            was_hit = self._was_hit(start, until)
            may_follow = self._may_come_again(*attempt[:2], outcome.at) if outcome else was_hit
            allowed += may_follow
            if following and not may_follow:
                unexplained.append((start.number, attempt[1]))
            if was_hit and until < math.inf:
                ends.append(until)
        return allowed, unexplained, ends

    def _outcome(self, attempt: _Attempt, start: Entry, following: Entry | None) -> LogEntry | None:
        """Return the log entry that settled a start, before the attempt started again."""
        # An entry with the time of the next start on the same worker belongs to that next start.
        precision = LOG_PRECISION if following and following.pid == start.pid else 0.0
        before = following.at - precision if following else math.inf
        for outcome in self._stored.get(attempt, ()):
            if outcome.pid == start.pid and start.at - LOG_PRECISION <= outcome.at <= before:
                return outcome
        return None

    def _was_hit(self, start: Entry, until: float) -> bool:
        """Return whether a fault hit its worker, or the backend, while the attempt was in flight."""
        return any(
            start.at <= max(a.end + (THAW if a.pid else 0.0), a.replays(start.message, start.group))
            and until >= a.begin
            and a.pid in (None, start.pid)
            for a in self.injected
        )


def _is_late(outcome: LogEntry, starts: Sequence[Entry]) -> bool:
    """Return whether the worker of an entry had started the attempt, and another worker started it later."""
    before = [start.pid for start in starts if start.at <= outcome.at]
    return outcome.pid in before and before[-1] != outcome.pid


def sample_of(pairs: Sequence[tuple[int, str]]) -> str:
    """Return the first pairs as text."""
    shown = ", ".join(f"{number}/{group}" for number, group in list(pairs)[:5])
    return shown + (", ..." if len(pairs) > 5 else "")
