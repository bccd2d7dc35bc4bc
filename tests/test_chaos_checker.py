"""Tests of the checker of the chaos harness, with hand-written ledgers."""

from __future__ import annotations

from chaos.checker import (
    DEAD_LETTERED,
    FOLLOWER,
    GROUPS,
    HANDLED,
    ORDERED,
    InjectedFault,
    LogEntry,
    check,
    waiting,
)
from chaos.ledger import ACCEPTED, ASKED, ENDED, STARTED, Entry
from chaos.plan import ORDERING_KEYS, STEPS

#: The pids of two workers.
FIRST, SECOND = 11, 12


class Ledger:
    """Records one event per second; every group handles a published message, except those in `without`."""

    def __init__(self):
        self.at = 1000.0
        self.entries, self.log = [], []

    def _note(self, kind, number, message, group="-", pid=0):
        self.at += 1.0
        self.entries.append(Entry(kind, number, message, group, 1, pid, self.at))
        return self.at

    def publish(self, number, *, without=()):
        """Publish a message and handle it in all other groups."""
        self.ask(number)
        for group in (*GROUPS, FOLLOWER):
            if group not in without:
                self.handle(number, group, FIRST)

    def ask(self, number):
        self._note(ASKED, number, f"m{number}")
        self._note(ACCEPTED, number, f"m{number}")

    def start(self, number, group, pid, message=None):
        return self._note(STARTED, number, message or self._id(number, group), group, pid)

    def end(self, number, group, pid):
        return self._note(ENDED, number, self._id(number, group), group, pid)

    def settle(self, number, group, pid, outcome=HANDLED):
        self.at += 1.0
        self.log.append(LogEntry(outcome, self._id(number, group), group, 1, pid, self.at))

    def handle(self, number, group, pid):
        self.start(number, group, pid)
        self.end(number, group, pid)
        self.settle(number, group, pid)

    def verdict(self, *injected, **given):
        found = check(self.entries, self.log, injected=injected, **given)
        assert waiting(self.entries, given.get("dead", ()), injected) == found.lost
        return found

    def _id(self, number, group):
        return f"m{number}" if group in GROUPS else f"emitted-{number}"


def test_run_without_faults_has_no_violations():
    ledger = Ledger()
    for number in range(3):
        ledger.publish(number)
    verdict = ledger.verdict()
    assert (verdict.accepted, verdict.duplicates, verdict.bound, verdict.violations) == (3, 0, 0, [])


def test_message_that_a_group_never_handled_is_lost():
    ledger = Ledger()
    ledger.publish(1)
    ledger.publish(2, without=["thread"])
    verdict = ledger.verdict()
    assert verdict.lost == [(2, "thread")]
    assert verdict.violations == ["1 lost: 2/thread"]


def test_emitted_message_that_was_never_handled_is_lost():
    ledger = Ledger()
    ledger.publish(1, without=[FOLLOWER])
    assert ledger.verdict().lost == [(1, FOLLOWER)]


def test_dead_letter_is_not_lost_but_must_be_expected():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    dead = [("m1", "thread")]
    assert not ledger.verdict(dead=dead, expected_dead=[1]).lost
    assert ledger.verdict(dead=dead).wrongly_dead_lettered == [(1, "thread")]


def test_loss_of_a_message_accepted_during_a_data_loss_is_allowed():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    begin = ledger.at + 1.5  # the second message is published before it and accepted after it
    ledger.publish(2, without=["thread"])
    verdict = ledger.verdict(InjectedFault(begin, ledger.at, loses=begin))
    assert (verdict.lost, verdict.forgotten) == ([(1, "thread")], 1)


def test_loss_of_a_removed_message_is_allowed_and_no_other_loss():
    ledger = Ledger()
    ledger.publish(1, without=["loop"])
    ledger.publish(2, without=["loop"])
    taken = ledger.verdict(InjectedFault(ledger.at, ledger.at, taken=frozenset([1])))
    assert (taken.lost, taken.forgotten) == ([(2, "loop")], 1)


def test_second_start_without_a_fault_is_a_violation():
    ledger = Ledger()
    ledger.publish(1)
    ledger.handle(1, "thread", SECOND)
    verdict = ledger.verdict()
    assert (verdict.duplicates, verdict.bound, verdict.unexplained) == (1, 0, [(1, "thread")])


def test_attempt_in_flight_on_a_killed_worker_may_run_again_once():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", FIRST)
    killed = InjectedFault(ledger.at + 0.5, ledger.at + 0.5, FIRST)
    ledger.handle(1, "thread", SECOND)
    verdict = ledger.verdict(killed)
    assert (verdict.duplicates, verdict.bound, verdict.violations) == (1, 1, [])
    assert verdict.recovery == 0.5
    ledger.handle(1, "thread", FIRST)
    assert ledger.verdict(killed).unexplained == [(1, "thread")]


def test_kill_allows_no_duplicate_of_other_workers_or_of_settled_messages():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", FIRST)
    ledger.publish(2)
    killed = InjectedFault(ledger.at, ledger.at, SECOND)
    ledger.handle(1, "thread", SECOND)
    ledger.handle(2, "thread", SECOND)
    verdict = ledger.verdict(killed, InjectedFault(ledger.at, ledger.at, FIRST))
    assert verdict.unexplained == [(1, "thread"), (2, "thread")]


def test_outcome_logged_at_the_time_of_the_second_start_belongs_to_it():
    ledger = Ledger()
    ledger.publish(1, without=["loop"])
    began = ledger.start(1, "loop", FIRST)
    ledger.end(1, "loop", FIRST)
    again = ledger.start(1, "loop", FIRST)
    ledger.log.append(LogEntry(HANDLED, "m1", "loop", 1, FIRST, again - 0.0004))  # logs round down
    assert not ledger.verdict(InjectedFault(began, began)).violations


def test_kill_after_the_second_start_does_not_explain_it():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", FIRST)
    ledger.handle(1, "thread", SECOND)
    assert ledger.verdict(InjectedFault(ledger.at, ledger.at, FIRST)).unexplained == [(1, "thread")]


def test_settle_after_a_lost_lease_is_a_violation():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    stopped = ledger.start(1, "thread", FIRST)
    ledger.start(1, "thread", SECOND)
    frozen = InjectedFault(stopped, ledger.at, FIRST)
    ledger.settle(1, "thread", FIRST)
    ledger.end(1, "thread", SECOND)
    verdict = ledger.verdict(frozen)
    assert verdict.settled_late == [(1, "thread")]
    ledger.settle(1, "thread", SECOND)
    assert ledger.verdict(frozen).settled_twice == [(1, "thread")]


def test_handled_message_that_is_dead_lettered_too_is_a_violation():
    ledger = Ledger()
    ledger.publish(1)
    ledger.settle(1, "thread", FIRST, DEAD_LETTERED)
    assert ledger.verdict().settled_twice == [(1, "thread")]


def test_step_that_starts_before_the_previous_one_was_handled_is_a_violation():
    ledger = Ledger()
    first, second, third = (STEPS + ordering_key * ORDERING_KEYS for ordering_key in range(3))
    for number in (first, second, third):
        ledger.ask(number)
    ledger.start(first, ORDERED, FIRST)
    ledger.start(third, ORDERED, SECOND)
    ledger.end(first, ORDERED, FIRST)
    ledger.settle(first, ORDERED, FIRST)
    ledger.handle(second, ORDERED, FIRST)
    ledger.end(third, ORDERED, SECOND)
    ledger.settle(third, ORDERED, SECOND)
    verdict = ledger.verdict()
    assert verdict.violations == ["1 out of order: 1000008/ordered"]


def test_second_copy_of_an_emitted_message_is_a_violation():
    ledger = Ledger()
    ledger.publish(1)
    ledger.start(1, FOLLOWER, SECOND, "another")
    assert ledger.verdict().emitted_twice == [(1, FOLLOWER)]


def test_handled_message_that_was_never_published_is_a_violation():
    ledger = Ledger()
    ledger.start(7, "thread", FIRST)
    assert ledger.verdict().unknown == [(7, "thread")]


def test_replay_of_a_group_allows_duplicates_in_that_group_only():
    ledger = Ledger()
    ledger.publish(1)
    replayed = InjectedFault(ledger.at, ledger.at, replayed=frozenset([("m1", "thread")]))
    ledger.handle(1, "thread", SECOND)
    assert not ledger.verdict(replayed).violations
    ledger.handle(1, "loop", SECOND)
    assert ledger.verdict(replayed).unexplained == [(1, "loop")]


def test_messages_of_a_destroyed_group_may_start_and_settle_a_little_later():
    started, settled = Ledger(), Ledger()
    started.publish(1, without=["thread"])
    gone = InjectedFault(started.at, started.at + 0.5, replayed=frozenset([("m1", "thread")]))
    started.start(1, "thread", FIRST)
    started.handle(1, "thread", SECOND)
    assert not started.verdict(gone).violations
    settled.publish(1, without=["thread"])
    settled.start(1, "thread", FIRST)
    gone = InjectedFault(settled.at + 0.5, settled.at + 0.6, replayed=frozenset([("m1", "thread")]))
    settled.settle(1, "thread", FIRST)
    settled.handle(1, "thread", SECOND)
    assert not settled.verdict(gone).violations


def test_start_recorded_after_a_freeze_counts_as_before_it_up_to_the_concurrency():
    ledger = Ledger()
    for number in range(6):
        ledger.publish(number, without=["thread"])
    begin = ledger.at
    for number in range(6):
        ledger.handle(number, "thread", SECOND)
    for number in range(6):
        ledger.start(number, "thread", FIRST)
    verdict = ledger.verdict(InjectedFault(begin, ledger.at, FIRST))
    assert (verdict.duplicates, verdict.bound, verdict.unexplained) == (6, 6, [(5, "thread")])


def test_message_that_a_worker_starts_soon_after_its_freeze_may_come_again():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    start = ledger.start(1, "thread", FIRST)
    ledger.end(1, "thread", FIRST)
    ledger.handle(1, "thread", FIRST)
    soon, late = (InjectedFault(start - wait - 3.0, start - wait, FIRST) for wait in (0.3, 0.9))
    assert not ledger.verdict(soon).violations
    assert ledger.verdict(late).unexplained == [(1, "thread")]


def test_resumed_worker_that_starts_a_message_of_a_killed_worker_does_not_settle_late():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    begin = ledger.at
    ledger.start(1, "thread", SECOND)
    killed = InjectedFault(ledger.at, ledger.at, SECOND)
    ledger.start(1, "thread", FIRST)
    ledger.end(1, "thread", FIRST)
    frozen = InjectedFault(begin, ledger.at, FIRST)  # includes the time in which a start may be recorded late
    ledger.settle(1, "thread", FIRST)
    assert not ledger.verdict(killed, frozen).violations


def test_resumed_worker_that_starts_a_message_of_a_killed_worker_makes_no_duplicate():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", SECOND)
    begin = ledger.at + 0.5
    killed = InjectedFault(begin + 0.5, begin + 0.5, SECOND)
    ledger.handle(1, "thread", FIRST)
    assert not ledger.verdict(killed, InjectedFault(begin, ledger.at, FIRST)).violations
