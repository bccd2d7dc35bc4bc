"""Events reach the listeners of their kind, and a listener that fails affects nothing else."""

from __future__ import annotations

from abe_router.observe.events import ConsumerStarted, Event, Events, Handled, Skipped

SKIPPED = Skipped("orders.created/billing", "1", "orders.created", "when")


def test_a_listener_gets_the_kinds_it_wants():
    everything, starts = [], []
    events = Events([((Event,), everything.append), ((ConsumerStarted,), starts.append)])
    events.emit(SKIPPED)

    assert everything == [SKIPPED]
    assert starts == []


def test_a_failing_listener_is_logged_and_the_others_are_called(caplog):
    seen = []

    def fails(event):
        raise RuntimeError("boom")

    Events([((Event,), fails), ((Event,), seen.append)]).emit(SKIPPED)

    assert seen == [SKIPPED]
    assert "a listener failed on Skipped" in caplog.text


def test_wants_handled_reports_whether_a_listener_wants_each_message():
    assert Events([((Event,), print)]).wants_handled
    assert Events([((Handled,), print)]).wants_handled
    assert not Events([((ConsumerStarted,), print)]).wants_handled
