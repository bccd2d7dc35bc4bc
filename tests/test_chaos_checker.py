"""The checker of the chaos runs sees every fault, in ledgers made by hand."""

from __future__ import annotations

from chaos.checker import DEAD_LETTERED, FOLLOWER, GROUPS, HANDLED, ORDERED, InjectedFault, LogEntry, check
from chaos.ledger import ACCEPTED, ASKED, ENDED, STARTED, Entry
from chaos.plan import ORDERING_KEYS, STEPS

#: The workers.
ANN, BOB = 11, 12


class Ledger:
    """What happened, a second apart; every group handles what is published but those that are left out."""

    def __init__(self):
        self.at = 1000.0
        self.entries, self.told = [], []

    def _note(self, kind, number, message, group="-", pid=0):
        self.at += 1.0
        self.entries.append(Entry(kind, number, message, group, 1, pid, self.at))
        return self.at

    def publish(self, number, *, without=()):
        """Publish a message and handle it in full."""
        self.ask(number)
        for group in (*GROUPS, FOLLOWER):
            if group not in without:
                self.handle(number, group, ANN)

    def ask(self, number):
        self._note(ASKED, number, f"m{number}")
        self._note(ACCEPTED, number, f"m{number}")

    def start(self, number, group, pid, message=None):
        return self._note(STARTED, number, message or self._id(number, group), group, pid)

    def end(self, number, group, pid):
        return self._note(ENDED, number, self._id(number, group), group, pid)

    def tell(self, number, group, pid, outcome=HANDLED):
        self.at += 1.0
        self.told.append(LogEntry(outcome, self._id(number, group), group, 1, pid, self.at))

    def handle(self, number, group, pid):
        self.start(number, group, pid)
        self.end(number, group, pid)
        self.tell(number, group, pid)

    def verdict(self, *injected, **given):
        return check(self.entries, self.told, injected=injected, **given)

    def _id(self, number, group):
        return f"m{number}" if group in GROUPS else f"emitted-{number}"


def test_a_run_without_faults_has_none():
    ledger = Ledger()
    for number in range(3):
        ledger.publish(number)
    verdict = ledger.verdict()
    assert (verdict.accepted, verdict.duplicates, verdict.bound, verdict.violations) == (3, 0, 0, [])


def test_what_a_group_never_handled_is_lost():
    ledger = Ledger()
    ledger.publish(1)
    ledger.publish(2, without=["thread"])
    verdict = ledger.verdict()
    assert verdict.lost == [(2, "thread")]
    assert verdict.violations == ["1 lost: 2/thread"]


def test_what_was_emitted_and_never_handled_is_lost():
    ledger = Ledger()
    ledger.publish(1, without=[FOLLOWER])
    assert ledger.verdict().lost == [(1, FOLLOWER)]


def test_what_is_among_the_dead_letters_is_not_lost_but_must_be_doomed():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    dead = [("m1", "thread")]
    assert not ledger.verdict(dead=dead, expected_dead=[1]).lost
    assert ledger.verdict(dead=dead).wrongly_dead_lettered == [(1, "thread")]


def test_what_was_accepted_while_a_backend_forgets_is_counted_apart():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    begin = ledger.at + 1.5  # the second one is asked for before, and accepted after
    ledger.publish(2, without=["thread"])
    verdict = ledger.verdict(InjectedFault(begin, ledger.at, loses=begin))
    assert (verdict.lost, verdict.forgotten) == ([(1, "thread")], 1)


def test_what_was_taken_is_counted_apart_however_long_it_had_waited_and_nothing_else():
    ledger = Ledger()
    ledger.publish(1, without=["loop"])
    ledger.publish(2, without=["loop"])
    taken = ledger.verdict(InjectedFault(ledger.at, ledger.at, taken=frozenset([1])))
    assert (taken.lost, taken.forgotten) == ([(2, "loop")], 1)


def test_a_second_start_that_nothing_explains_is_a_fault():
    ledger = Ledger()
    ledger.publish(1)
    ledger.handle(1, "thread", BOB)
    verdict = ledger.verdict()
    assert (verdict.duplicates, verdict.bound, verdict.unexplained) == (1, 0, [(1, "thread")])


def test_what_a_killed_worker_had_in_hand_may_run_again_once():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", ANN)
    killed = InjectedFault(ledger.at + 0.5, ledger.at + 0.5, ANN)
    ledger.handle(1, "thread", BOB)
    verdict = ledger.verdict(killed)
    assert (verdict.duplicates, verdict.bound, verdict.violations) == (1, 1, [])
    assert verdict.recovery == 0.5
    ledger.handle(1, "thread", ANN)
    assert ledger.verdict(killed).unexplained == [(1, "thread")]


def test_what_another_worker_had_in_hand_and_what_was_settled_before_the_kill_may_not():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", ANN)
    ledger.publish(2)
    killed = InjectedFault(ledger.at, ledger.at, BOB)
    ledger.handle(1, "thread", BOB)
    ledger.handle(2, "thread", BOB)
    verdict = ledger.verdict(killed, InjectedFault(ledger.at, ledger.at, ANN))
    assert verdict.unexplained == [(1, "thread"), (2, "thread")]


def test_what_is_told_in_the_moment_of_the_second_start_is_told_of_that():
    ledger = Ledger()
    ledger.publish(1, without=["loop"])
    began = ledger.start(1, "loop", ANN)
    ledger.end(1, "loop", ANN)
    again = ledger.start(1, "loop", ANN)
    ledger.told.append(LogEntry(HANDLED, "m1", "loop", 1, ANN, again - 0.0004))  # as logs cut it
    assert not ledger.verdict(InjectedFault(began, began)).violations


def test_a_kill_after_the_second_start_does_not_explain_it():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", ANN)
    ledger.handle(1, "thread", BOB)
    assert ledger.verdict(InjectedFault(ledger.at, ledger.at, ANN)).unexplained == [(1, "thread")]


def test_a_late_settle_that_changed_something_is_a_fault():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    stopped = ledger.start(1, "thread", ANN)
    ledger.start(1, "thread", BOB)
    frozen = InjectedFault(stopped, ledger.at, ANN)
    ledger.tell(1, "thread", ANN)
    ledger.end(1, "thread", BOB)
    verdict = ledger.verdict(frozen)
    assert verdict.settled_late == [(1, "thread")]
    ledger.tell(1, "thread", BOB)
    assert ledger.verdict(frozen).settled_twice == [(1, "thread")]


def test_handled_and_dead_at_once_is_a_fault():
    ledger = Ledger()
    ledger.publish(1)
    ledger.tell(1, "thread", ANN, DEAD_LETTERED)
    assert ledger.verdict().settled_twice == [(1, "thread")]


def test_a_step_that_began_before_the_one_before_it_was_done_is_a_fault():
    ledger = Ledger()
    first, second, third = (STEPS + ordering_key * ORDERING_KEYS for ordering_key in range(3))
    for number in (first, second, third):
        ledger.ask(number)
    ledger.start(first, ORDERED, ANN)
    ledger.start(third, ORDERED, BOB)
    ledger.end(first, ORDERED, ANN)
    ledger.tell(first, ORDERED, ANN)
    ledger.handle(second, ORDERED, ANN)
    ledger.end(third, ORDERED, BOB)
    ledger.tell(third, ORDERED, BOB)
    verdict = ledger.verdict()
    assert verdict.violations == ["1 out of order: 1000008/ordered"]


def test_a_second_copy_of_what_was_emitted_is_a_fault():
    ledger = Ledger()
    ledger.publish(1)
    ledger.start(1, FOLLOWER, BOB, "another")
    assert ledger.verdict().emitted_twice == [(1, FOLLOWER)]


def test_what_nobody_published_is_a_fault():
    ledger = Ledger()
    ledger.start(7, "thread", ANN)
    assert ledger.verdict().unknown == [(7, "thread")]


def test_what_a_group_replays_may_come_again_to_that_group_alone():
    ledger = Ledger()
    ledger.publish(1)
    replayed = InjectedFault(ledger.at, ledger.at, replayed=frozenset([("m1", "thread")]))
    ledger.handle(1, "thread", BOB)
    assert not ledger.verdict(replayed).violations
    ledger.handle(1, "loop", BOB)
    assert ledger.verdict(replayed).unexplained == [(1, "loop")]


def test_what_a_worker_had_of_a_group_that_is_gone_may_be_begun_and_told_a_little_later():
    begun, told = Ledger(), Ledger()
    begun.publish(1, without=["thread"])
    gone = InjectedFault(begun.at, begun.at + 0.5, replayed=frozenset([("m1", "thread")]))
    begun.start(1, "thread", ANN)
    begun.handle(1, "thread", BOB)
    assert not begun.verdict(gone).violations
    told.publish(1, without=["thread"])
    told.start(1, "thread", ANN)
    gone = InjectedFault(told.at + 0.5, told.at + 0.6, replayed=frozenset([("m1", "thread")]))
    told.tell(1, "thread", ANN)
    told.handle(1, "thread", BOB)
    assert not told.verdict(gone).violations


def test_what_a_worker_noted_late_since_it_was_stopped_counts_as_begun_before_but_not_more_than_it_can_run():
    ledger = Ledger()
    for number in range(6):
        ledger.publish(number, without=["thread"])
    begin = ledger.at
    for number in range(6):
        ledger.handle(number, "thread", BOB)
    for number in range(6):
        ledger.start(number, "thread", ANN)
    verdict = ledger.verdict(InjectedFault(begin, ledger.at, ANN))
    assert (verdict.duplicates, verdict.bound, verdict.unexplained) == (6, 6, [(5, "thread")])


def test_who_goes_on_and_begins_anew_what_another_had_begun_meanwhile_is_not_taken_for_one_who_settles_late():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    begin = ledger.at
    ledger.start(1, "thread", BOB)
    killed = InjectedFault(ledger.at, ledger.at, BOB)
    ledger.start(1, "thread", ANN)
    ledger.end(1, "thread", ANN)
    frozen = InjectedFault(
        begin, ledger.at, ANN
    )  # with the time that she may take to note what she had begun
    ledger.tell(1, "thread", ANN)
    assert not ledger.verdict(killed, frozen).violations


def test_who_goes_on_and_begins_what_another_lost_meanwhile_is_not_taken_for_one_who_doubled_it():
    ledger = Ledger()
    ledger.publish(1, without=["thread"])
    ledger.start(1, "thread", BOB)
    begin = ledger.at + 0.5
    killed = InjectedFault(begin + 0.5, begin + 0.5, BOB)
    ledger.handle(1, "thread", ANN)
    assert not ledger.verdict(killed, InjectedFault(begin, ledger.at, ANN)).violations
