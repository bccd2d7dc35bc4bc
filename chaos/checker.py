"""Judges a run by what was noted, without asking the backend what it believes.

What is known: the ledger, that is what was accepted and which handlers began and ended; what each worker
told in its log once an outcome was kept; the dead letters; and when which worker, or the backend, was
afflicted. A message is in hand of a worker from when its handler began until its outcome was told. A
handler may run again for what was in hand of an afflicted worker, and for nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chaos.ledger import ACCEPTED, ASKED, ENDED, STARTED, Entry

#: The groups that get what is published, and the one that gets what the first of them emits.
GROUPS, EMITTER, FOLLOWER = ("loop", "thread"), "loop", "follow"
#: The number of a message that nobody published or began.
NOBODY = -1
#: Outcomes after which a message never comes again.
HANDLED, DIED = "handled", "dead_lettered"


@dataclass(frozen=True, slots=True)
class Affliction:
    """Something was done to a worker, to all of them, or to what the backend remembers; times as in the ledger.

    Whoever `forgets` may lose what was asked for until the end, and hand out anew what was handled by then.
    """

    begin: float
    end: float
    pid: int | None = None
    forgets: bool = False


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
    #: Accepted, neither handled nor among the dead letters; those a forgetful backend may have lost are apart.
    lost: Sequence[tuple[int, str]] = ()
    forgotten: int = 0
    #: How often a handler ran again for the same attempt, and how often it was permitted to.
    duplicates: int = 0
    bound: int = 0
    #: Those of them that nothing permits.
    unexplained: Sequence[tuple[int, str]] = ()
    #: Emitted more than once by one message.
    doubled: Sequence[tuple[int, str]] = ()
    #: Settled for good more than once: a settle that should have been refused was not.
    settled_twice: Sequence[tuple[int, str]] = ()
    #: Among the dead letters, though nothing was wrong with them; and not there, though they should be.
    wrongly_dead: Sequence[tuple[int, str]] = ()
    #: Handled, and never asked for.
    unknown: Sequence[tuple[int, str]] = ()
    #: How long, in seconds, after the last affliction something that had been in hand was in hand anew.
    recovery: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What of it breaks the promise, in words; who may die along with others is not its matter."""
        kinds = {
            "lost": self.lost,
            "doubled without a reason": self.unexplained,
            "emitted twice": self.doubled,
            "settled twice": self.settled_twice,
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
) -> Finding:
    """Judge a run; `dead` are message ids with their group, `doomed` the numbers that must end there.

    `numbers` are those of messages, by id, that may have died before anybody began with them.
    """
    run = _Run(told, dead, afflictions, numbers=dict(numbers or {}))
    for entry in sorted(entries, key=lambda entry: entry.at):
        run.see(entry)
    return run.finding(frozenset(doomed))


@dataclass
class _Run:
    """The entries of a run, by what they are about."""

    told: Iterable[Told]
    dead: Collection[tuple[str, str]]
    afflictions: Sequence[Affliction]
    asked: dict[int, float] = field(default_factory=dict)
    accepted: dict[int, float] = field(default_factory=dict)
    ended: set[tuple[int, str]] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    starts: Mapping[tuple[str, str, int], list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._kept = defaultdict[tuple[str, str, int], list[Told]](list)
        self._final = defaultdict[tuple[str, str], int](int)
        for word in self.told:
            self._kept[word.message, word.group, word.attempt].append(word)
            if word.outcome in (HANDLED, DIED):
                self._final[word.message, word.group] += 1
        self._forgot = max((a.end for a in self.afflictions if a.forgets), default=0.0)

    def see(self, entry: Entry) -> None:
        """Take in an entry; they come in the order of time."""
        self.numbers.setdefault(entry.message, entry.number)
        if entry.kind == ASKED:
            self.asked[entry.number] = entry.at
        elif entry.kind == ACCEPTED:
            self.accepted[entry.number] = entry.at
        elif entry.kind == STARTED:
            self.starts[entry.message, entry.group, entry.attempt].append(entry)
        elif entry.kind == ENDED:
            self.ended.add((entry.number, entry.group))

    def finding(self, doomed: frozenset[int]) -> Finding:
        """Judge."""
        dead = {(self.numbers.get(message, NOBODY), group) for message, group in self.dead}
        missing = [pair for pair in self._expected(dead) if pair not in self.ended and pair not in dead]
        excused = {number for number, at in self.asked.items() if at <= self._forgot}
        duplicates, bound, unexplained, recovery = self._repeated()
        seen = {(self.numbers[message], group) for message, group, _ in self.starts}
        return Finding(
            accepted=len(self.accepted),
            lost=[pair for pair in missing if pair[0] not in excused],
            forgotten=sum(pair[0] in excused for pair in missing),
            duplicates=duplicates,
            bound=bound,
            unexplained=unexplained,
            doubled=[] if self._forgot else self._doubled(),
            settled_twice=[]
            if self._forgot
            else [(self.numbers[m], g) for (m, g), count in self._final.items() if count > 1],
            wrongly_dead=sorted(
                {pair for pair in dead if pair[0] not in doomed or pair[1] == FOLLOWER}
                | {pair for pair in seen & self.ended if pair[0] in doomed and pair[1] in GROUPS}
            ),
            unknown=[pair for pair in seen if pair[0] not in self.asked],
            recovery=recovery,
        )

    def _expected(self, dead: Collection[tuple[int, str]]) -> Iterable[tuple[int, str]]:
        """Yield what must have happened: every group handles what was accepted, and what was emitted."""
        for number in self.accepted:
            for group in GROUPS:
                yield number, group
            if (number, EMITTER) in self.ended and (number, EMITTER) not in dead:
                yield number, FOLLOWER

    def _doubled(self) -> list[tuple[int, str]]:
        """Return the messages of which the follower got several."""
        copies = defaultdict[int, set[str]](set)
        for message, group, _ in self.starts:
            if group == FOLLOWER:
                copies[self.numbers[message]].add(message)
        return [(number, FOLLOWER) for number, messages in copies.items() if len(messages) > 1]

    def _repeated(self) -> tuple[int, int, list[tuple[int, str]], float]:
        """Return the extra starts, how many are permitted, those that are not, and the longest recovery."""
        duplicates, bound, recovery = 0, 0, 0.0
        last = max((affliction.end for affliction in self.afflictions), default=0.0)
        unexplained = []
        for place, starts in self.starts.items():
            permitted = [self._was_in_hand(start) for start in starts]
            bound += sum(found is not None for found in permitted)
            duplicates += len(starts) - 1
            if any(found is None for found in permitted[:-1]):
                unexplained.append((starts[0].number, place[1]))
            for start, found in zip(starts, permitted, strict=True):
                if (
                    found is not None
                    and not found.forgets
                    and (again := self._next_sign(place, start, found))
                ):
                    recovery = max(recovery, again - last)
        return duplicates, bound, unexplained, recovery

    def _was_in_hand(self, start: Entry) -> Affliction | None:
        """Return what afflicted the worker while it had this in hand, or the backend that remembers it."""
        words = self._kept.get((start.message, start.group, start.attempt), ())
        until = min((word.at for word in words if word.pid == start.pid), default=float("inf"))
        for affliction in self.afflictions:
            if start.at <= affliction.end and (
                affliction.forgets or (affliction.pid in (None, start.pid) and until >= affliction.begin)
            ):
                return affliction
        return None

    def _next_sign(self, place: tuple[str, str, int], start: Entry, affliction: Affliction) -> float | None:
        """Return when somebody began with it anew, or its outcome was kept, after the affliction began."""
        signs = [other.at for other in self.starts[place] if other is not start]
        signs += [word.at for word in self._kept.get(place, ())]
        return min((at for at in signs if at >= affliction.begin), default=None)


def some(pairs: Sequence[tuple[int, str]]) -> str:
    """Return the first few pairs, as text."""
    shown = ", ".join(f"{number}/{group}" for number, group in list(pairs)[:5])
    return shown + (", ..." if len(pairs) > 5 else "")
