"""Every provider is compared with one model of the contract, in random sequences of calls."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from . import bugs, key_value_bugs, view_bugs
from .machine import Machine
from .world import MemoryWorld, RedisWorld, SQLiteWorld

#: By how much to multiply the runs; then they also differ each time.
LONGER = int(os.environ.get("ABE_ROUTER_LONGER", "0"))
#: Bugs that show in whole calls, one after another; the others need a call that is cancelled.
SEEN = (
    bugs.AcksBeforeTheHandler,
    bugs.NeverReclaims,
    bugs.ReclaimsWhenThereIsTraffic,
    bugs.SettlesForAnyone,
    bugs.SettlesForTheSameOwner,
    bugs.ExtensionTakesBack,
    bugs.ExtensionRevives,
    bugs.GroupsBeginAtTheEnd,
    bugs.IgnoresTheLimit,
    bugs.FetchesAhead,
    bugs.CountsAttemptsInTheWorker,
    bugs.PublishesRetriesForEveryone,
    bugs.KeepsRetriesInTheWorker,
    bugs.RemovesItsPendingWhenItCloses,
    bugs.CountsWhatIsReleased,
    bugs.ReplaysForEveryone,
    bugs.ReturnsToTheEnd,
    bugs.PublishesAgainWhenTheReplyIsLost,
    key_value_bugs.ComparesNothingWithNoEntry,
    key_value_bugs.DeletesAnyRevision,
    key_value_bugs.GivesRevisionsAgain,
    key_value_bugs.NeverExpires,
    view_bugs.CountsTheAgeOfWhatIsInFlight,
    view_bugs.ForgetsTheAgeOfWhatCameBack,
    view_bugs.PeekCountsAsADelivery,
    view_bugs.PeekForgetsWhatIsDelayed,
    view_bugs.PeekBeginsWithWhatWasSeen,
)


def run(make_world, examples, **options):
    """Make `examples` runs of fifty steps, each in a new world; raise the first failure."""
    machine = type("Contract", (Machine,), {"make_world": staticmethod(make_world)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * max(LONGER, 1),
            stateful_step_count=50,
            derandomize=not LONGER,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


@pytest.mark.timeout(120 * max(LONGER, 1))
class TestProviderAgreesWithTheModel:
    def test_memory(self):
        run(MemoryWorld, 60)

    def test_sqlite(self):
        run(SQLiteWorld, 30)

    def test_redis(self, redis_server):
        run(lambda: RedisWorld(redis_server.url), 25)


@pytest.mark.parametrize("bug", SEEN, ids=lambda bug: bug.__name__)
def test_model_finds_the_bug(bug):
    provider = bug if issubclass(bug, bugs.Sound) else type(bug.__name__, (bugs.Sound,), {"handle": bug})
    with pytest.raises((AssertionError, KeyError)):
        run(lambda: MemoryWorld(provider), 500, phases=[Phase.generate])
