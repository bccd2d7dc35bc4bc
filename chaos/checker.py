"""Judges a run by what was noted, without asking the backend what it believes.

What is known: the ledger, that is what was accepted and which handlers began and ended; what each worker
told in its log once an outcome was kept; the dead letters; and when which worker, or the backend, was
afflicted. A message is in hand of a worker from when its handler began until its outcome was told, or until
it was begun anew. What was in hand of an afflicted worker, and whose outcome it never told, may run again;
nothing else may.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from chaos.ledger import ACCEPTED, ASKED, ENDED, STARTED, Entry
from chaos.plan import LANES, STEPS

#: The groups that get what is published, and the one that gets what the first of them emits.
GROUPS, EMITTER, FOLLOWER = ("loop", "thread"), "loop", "follow"
#: The group that gets steps, in the order of their lanes.
ORDERED = "ordered"
#: The number of a message that nobody published or began.
NOBODY = -1
#: Outcomes after which a message never comes again.
HANDLED, DIED = "handled", "dead_lettered"
#: How many handlers of a group a worker runs at once, at most.
CONCURRENCY = 5
#: How exact the times of outcomes are, in seconds: logs cut them to milliseconds.
EXACT = 0.001
#: How long after a group is gone its workers may still begin what they had of it, and tell what it had kept,
#: in seconds.
BELATED = 1.0


@dataclass(frozen=True, slots=True)
class Affliction:
    """Something was done to a worker, to all, or to what the backend remembers; times as in the ledger.

    What was accepted from `loses` to the end may be lost, and so may what was `taken`: numbers of messages.
    What was settled from `undoes` to the end may come again, and so may what is `replayed`: message ids, each
    with a group.
    """

    begin: float
    end: float
    pid: int | None = None
    loses: float = math.inf
    undoes: float = math.inf
    taken: frozenset[int] = frozenset()
    replayed: frozenset[tuple[str, str]] = frozenset()

    def replays(self, message: str, group: str) -> float:
        """Return until when what a group does with a message may be for nothing, for it comes again."""
        return self.end + BELATED if (message, group) in self.replayed else -math.inf


class Told(NamedTuple):
    """A worker's word that an outcome is kept."""

    outcome: str
    message: str
    group: str
    attempt: int
    pid: int
    at: float


@dataclass(frozen=True)
class Finding:
    """What is true of a run. Pairs are of a number and a group."""

    accepted: int = 0
    #: Accepted, neither handled nor among the dead letters; those that a backend may have lost are apart.
    lost: Sequence[tuple[int, str]] = ()
    forgotten: int = 0
    #: How often a handler ran again for the same attempt, and how often it was permitted to: how much was
    #: in hand of the afflicted, and never told to be settled.
    duplicates: int = 0
    bound: int = 0
    #: Those of them that nothing permits.
    unexplained: Sequence[tuple[int, str]] = ()
    #: Steps that began before the one before them in their lane was done with.
    disordered: Sequence[tuple[int, str]] = ()
    #: Emitted more than once by one message.
    doubled: Sequence[tuple[int, str]] = ()
    #: Settled for good more than once, and settled by a worker after another had begun with the same
    #: attempt: a settle that should have been refused was not.
    settled_twice: Sequence[tuple[int, str]] = ()
    settled_late: Sequence[tuple[int, str]] = ()
    #: Among the dead letters, though nothing was wrong with them; and not there, though they should be.
    wrongly_dead: Sequence[tuple[int, str]] = ()
    #: Handled, and never asked for.
    unknown: Sequence[tuple[int, str]] = ()
    #: How long, in seconds, after the last affliction, and with a worker there, until the last of what had
    #: been in hand was in hand anew, or settled.
    recovery: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What of it breaks the promise, in words; who may die along with others is not its matter."""
        kinds = {
            "lost": self.lost,
            "doubled without a reason": self.unexplained,
            "out of order": self.disordered,
            "emitted twice": self.doubled,
            "settled twice": self.settled_twice,
            "settled by who had lost the lease": self.settled_late,
            "handled but never published": self.unknown,
        }
        return [f"{len(them)} {what}: {some(them)}" for what, them in kinds.items() if them]


def check(
    entries: Iterable[Entry],
    told: Iterable[Told],
    *,
    dead: Collection[tuple[str, str]] = (),
    doomed: Collection[int] = (),
    afflictions: Sequence[Affliction] = (),
    numbers: Mapping[str, int] | None = None,
    staffed: Callable[[float], float] = float,
) -> Finding:
    """Judge a run; `dead` are message ids with their group, `doomed` the numbers that must end there.

    `numbers` are those of messages, by id, that may have died before anybody began with them. `staffed`
    says when, from some time on, there was a worker, for without one nothing recovers.
    """
    run = _Run(told, dead, afflictions, staffed, numbers=dict(numbers or {}))
    for entry in sorted(entries, key=lambda entry: entry.at):
        run.see(entry)
    run.put_right()
    return run.finding(frozenset(doomed))


#: A message, a group, an attempt.
_Place = tuple[str, str, int]


@dataclass
class _Run:
    """The entries of a run, by what they are about."""

    told: Iterable[Told]
    dead: Collection[tuple[str, str]]
    afflictions: Sequence[Affliction]
    staffed: Callable[[float], float]
    asked: dict[int, float] = field(default_factory=dict)
    accepted: dict[int, float] = field(default_factory=dict)
    ended: set[tuple[int, str]] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    starts: Mapping[_Place, list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._ended_at: dict[tuple[object, ...], float] = {}
        self._began_at: dict[int, float] = {}
        self._kept = defaultdict[_Place, list[Told]](list)
        self._as_noted: dict[_Place, list[Entry]] = {}
        for word in sorted(self.told, key=lambda word: word.at):
            self._kept[word.message, word.group, word.attempt].append(word)

    def see(self, entry: Entry) -> None:
        """Take in an entry; they come in the order of time."""
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

    def put_right(self) -> None:
        """Put what a worker noted late, as it was stopped, to when that was: one for each free place at most.

        Who is stopped when a handler has been called, and has not yet noted that it began, notes so later on.
        Or it begins something as soon as it goes on: which of the two it was cannot be known, so nobody is
        accused of what follows from one of them alone.
        """
        for a in self.afflictions:
            if a.pid is None or a.begin == a.end:
                continue
            own = [start for starts in self.starts.values() for start in starts if start.pid == a.pid]
            for group in {start.group for start in own}:
                before = [start for start in own if start.group == group and start.at <= a.begin]
                running = sum(self._ended_at.get(start[2:6], math.inf) > a.begin for start in before)
                late = [start for start in own if start.group == group and a.begin < start.at <= a.end]
                for start in late[: max(0, CONCURRENCY - running)]:
                    place = start.message, group, start.attempt
                    starts = self.starts[place]
                    self._as_noted.setdefault(place, list(starts))
                    starts[starts.index(start)] = start._replace(at=a.begin)
                    starts.sort(key=lambda start: start.at)

    def finding(self, doomed: frozenset[int]) -> Finding:
        """Judge."""
        dead = {(self.numbers.get(message, NOBODY), group) for message, group in self.dead}
        missing = [pair for pair in self._expected(dead) if pair not in self.ended and pair not in dead]
        excused = {number for number, at in self.accepted.items() if self._may_be_lost(number, at)}
        duplicates, bound, unexplained, recovery = self._repeated()
        seen = {(self.numbers[message], group) for message, group, _ in self.starts}
        return Finding(
            accepted=len(self.accepted),
            lost=[pair for pair in missing if pair[0] not in excused],
            forgotten=sum(pair[0] in excused for pair in missing),
            duplicates=duplicates,
            bound=bound,
            unexplained=unexplained,
            disordered=self._disordered(),
            doubled=self._doubled(),
            settled_twice=self._settled_twice(),
            settled_late=self._settled_late(),
            wrongly_dead=sorted(
                {pair for pair in dead if pair[0] not in doomed or pair[1] == FOLLOWER}
                | {pair for pair in seen & self.ended if pair[0] in doomed and pair[1] in GROUPS}
            ),
            unknown=[pair for pair in seen if pair[0] not in self.asked],
            recovery=recovery,
        )

    def _may_be_lost(self, number: int, accepted_at: float) -> bool:
        """Say whether it was taken, or kept, some time after it was asked for, while that was forgotten."""
        asked_at = self.asked.get(number, accepted_at)
        return any(
            number in a.taken or (a.loses <= accepted_at and asked_at <= a.end) for a in self.afflictions
        )

    def _may_come_again(self, message: str, group: str, settled_at: float) -> bool:
        """Say whether the backend may have forgotten that a message was settled."""
        return any(
            a.undoes - EXACT <= settled_at <= a.end or settled_at <= a.replays(message, group)
            for a in self.afflictions
        )

    def _expected(self, dead: Collection[tuple[int, str]]) -> Iterable[tuple[int, str]]:
        """Yield what must have happened: every group handles what was accepted, and what was emitted."""
        for number in self.accepted:
            for group in GROUPS if number < STEPS else (ORDERED,):
                yield number, group
            if (number, EMITTER) in self.ended and (number, EMITTER) not in dead:
                yield number, FOLLOWER

    def _disordered(self) -> list[tuple[int, str]]:
        """Return the steps that began too early."""
        done = dict[int, float]()
        for place, starts in self.starts.items():
            for start, following in zip_longest(starts, starts[1:]):
                word = self._word(place, start, following)
                ended = self._ended_at.get(start[2:6], math.inf)
                if place[1] == ORDERED and word and word.outcome == HANDLED:
                    done[start.number] = min(done.get(start.number, math.inf), ended)
        early = [n for n, at in self._began_at.items() if at < done.get(n - LANES, 0.0)]
        return [(number, ORDERED) for number in sorted(early) if number - LANES in self.accepted]

    def _doubled(self) -> list[tuple[int, str]]:
        """Return the messages of which the follower got several."""
        copies = defaultdict[int, set[str]](set)
        for message, group, _ in self.starts:
            if group == FOLLOWER:
                copies[self.numbers[message]].add(message)
        several = {number for number, messages in copies.items() if len(messages) > 1}
        for (message, group, _), words in self._kept.items():
            if group == EMITTER and self._may_come_again(message, group, words[0].at):
                several.discard(self.numbers.get(message, NOBODY))
        return [(number, FOLLOWER) for number in sorted(several)]

    def _settled_twice(self) -> list[tuple[int, str]]:
        """Return what was settled for good several times."""
        final = defaultdict[tuple[str, str], list[Told]](list)
        for (message, group, _), words in self._kept.items():
            final[message, group] += [word for word in words if word.outcome in (HANDLED, DIED)]
        return [
            (self.numbers.get(message, NOBODY), group)
            for (message, group), words in final.items()
            if len(words) > 1 and not self._may_come_again(message, group, min(word.at for word in words))
        ]

    def _settled_late(self) -> list[tuple[int, str]]:
        """Return what a worker settled that had begun with it, and then another had."""
        late = []
        for place, starts in self.starts.items():
            for word in self._kept.get(place, ()):
                is_late = all(_is_late(word, each) for each in (starts, self._as_noted.get(place, starts)))
                if is_late and not self._may_come_again(*place[:2], word.at):
                    late.append((starts[0].number, place[1]))
        return late

    def _repeated(self) -> tuple[int, int, list[tuple[int, str]], float]:
        """Return the extra starts, how many are permitted, those that are not, and the longest recovery."""
        duplicates, bound, recovery = 0, 0, 0.0
        last = self.staffed(max((affliction.end for affliction in self.afflictions), default=0.0))
        unexplained = list[tuple[int, str]]()
        for place, starts in self.starts.items():
            duplicates += len(starts) - 1
            judged = [self._repeats(place, each) for each in (starts, self._as_noted.get(place, starts))]
            permitted, accused, ends = min(judged, key=lambda judgement: len(judgement[1]))
            bound += permitted
            unexplained += accused
            recovery = max([recovery, *(end - last for end in ends)])
        return duplicates, bound, unexplained, recovery

    def _repeats(
        self, place: _Place, starts: Sequence[Entry]
    ) -> tuple[int, list[tuple[int, str]], list[float]]:
        """Return of the starts of one place how many may be followed by another, and which were and may not.

        And when those that were struck were in hand anew, or settled.
        """
        permitted, unexplained, ends = 0, [], []
        for start, following in zip_longest(starts, starts[1:]):
            word = self._word(place, start, following)
            until = min(following.at if following else math.inf, word.at if word else math.inf)
            struck = self._struck(start, until)
            may_follow = self._may_come_again(*place[:2], word.at) if word else struck
            permitted += may_follow
            if following and not may_follow:
                unexplained.append((start.number, place[1]))
            if struck and until < math.inf:
                ends.append(until)
        return permitted, unexplained, ends

    def _word(self, place: _Place, start: Entry, following: Entry | None) -> Told | None:
        """Return the word by which a start was settled, before it was begun anew."""
        # Of a word of the very moment in which its worker began anew, it is the new one that it tells of.
        exact = EXACT if following and following.pid == start.pid else 0.0
        before = following.at - exact if following else math.inf
        for word in self._kept.get(place, ()):
            if word.pid == start.pid and start.at - EXACT <= word.at <= before:
                return word
        return None

    def _struck(self, start: Entry, until: float) -> bool:
        """Say whether the worker that began it, or the backend, was afflicted while it was in hand."""
        return any(
            start.at <= max(a.end, a.replays(start.message, start.group))
            and until >= a.begin
            and a.pid in (None, start.pid)
            for a in self.afflictions
        )


def _is_late(word: Told, starts: Sequence[Entry]) -> bool:
    """Say whether a word comes from a worker that had begun, but not as the last one before the word."""
    before = [start.pid for start in starts if start.at <= word.at]
    return word.pid in before and before[-1] != word.pid


def some(pairs: Sequence[tuple[int, str]]) -> str:
    """Return the first few pairs, as text."""
    shown = ", ".join(f"{number}/{group}" for number, group in list(pairs)[:5])
    return shown + (", ..." if len(pairs) > 5 else "")
