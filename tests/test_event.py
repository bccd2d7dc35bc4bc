"""Events reach who wants them, and a listener that fails breaks nothing."""

from __future__ import annotations

from abe_router.observe.events import ConsumerStarted, Event, Events, Handled, Skipped

SKIPPED = Skipped("orders.created/billing", "1", "orders.created", "when")


def test_a_listener_gets_the_kinds_it_wants():
    all_of_them, starts = [], []
    events = Events([((Event,), all_of_them.append), ((ConsumerStarted,), starts.append)])
    events.emit(SKIPPED)

    assert all_of_them == [SKIPPED]
    assert starts == []


def test_a_listener_that_fails_is_logged_and_the_others_are_told(caplog):
    told = []

    def fails(event):
        raise RuntimeError("boom")

    Events([((Event,), fails), ((Event,), told.append)]).emit(SKIPPED)

    assert told == [SKIPPED]
    assert "a listener failed on Skipped" in caplog.text


def test_the_hot_path_knows_whether_anyone_wants_each_message():
    assert Events([((Event,), print)]).wants_handled
    assert Events([((Handled,), print)]).wants_handled
    assert not Events([((ConsumerStarted,), print)]).wants_handled
