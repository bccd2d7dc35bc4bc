"""The suite sees every bug that was put into a provider, and nothing where there is none."""

from __future__ import annotations

import pytest

from abe_router.conformance import BackendConformance

from . import bugs, dedupe_bugs, order_bugs

#: Each bug, and a test that must fail on it.
BUGS = [
    (bugs.AcksBeforeTheHandler, "test_what_a_dead_worker_held_comes_back_without_traffic"),
    (bugs.AcksBeforeTheHandler, "test_reopening_finds_everything_again"),
    (bugs.NeverReclaims, "test_what_a_dead_worker_held_comes_back_without_traffic"),
    (bugs.NeverReclaims, "test_a_crash_counts_as_a_delivery_but_not_as_an_attempt"),
    (bugs.ReclaimsWhenThereIsTraffic, "test_what_a_dead_worker_held_comes_back_without_traffic"),
    (bugs.SettlesForAnyone, "test_a_stale_ack_is_refused"),
    (bugs.SettlesForAnyone, "test_a_stale_retry_is_refused"),
    (bugs.SettlesForAnyone, "test_a_stale_dead_letter_is_refused"),
    (bugs.SettlesForAnyone, "test_a_stale_release_is_refused"),
    (bugs.SettlesForTheSameOwner, "test_the_same_handle_is_fenced_from_its_own_past"),
    (bugs.HeartbeatStealsBack, "test_a_stale_extension_takes_nothing_back"),
    (bugs.HeartbeatRevives, "test_an_extension_does_not_revive_what_is_settled"),
    (bugs.GroupsBeginAtTheEnd, "test_what_was_published_before_the_subscription_comes"),
    (bugs.GroupsBeginAtTheEnd, "test_a_late_group_gets_what_another_has_not_settled"),
    (bugs.TrimsByLength, "test_nothing_unsettled_is_ever_trimmed"),
    (bugs.PublishesAgainWhenTheReplyIsLost, "test_many_publishers_and_many_handles"),
    (bugs.IgnoresTheLimit, "test_a_fetch_takes_no_more_than_its_limit"),
    (bugs.FetchesAhead, "test_a_fetch_takes_no_more_than_its_limit"),
    (bugs.WritesTheLetterAndThenAcks, "test_a_cancelled_dead_letter_is_in_one_place"),
    (bugs.AcksAndThenWritesTheLetter, "test_a_cancelled_dead_letter_is_in_one_place"),
    (bugs.StrandsWhatACancelledFetchBrought, "test_a_cancelled_fetch_strands_nothing"),
    (bugs.CountsAttemptsInTheWorker, "test_a_crash_keeps_the_attempt"),
    (bugs.CountsAttemptsInTheWorker, "test_attempts_and_the_first_failure_are_kept"),
    (bugs.PublishesRetriesForEveryone, "test_other_groups_see_nothing_of_a_retry"),
    (bugs.KeepsRetriesInTheWorker, "test_retries_survive_reopening"),
    (bugs.RemovesItsPendingWhenItCloses, "test_a_closed_handle_keeps_nothing_beyond_the_lease"),
    (bugs.CountsWhatIsReleased, "test_what_is_released_comes_back_at_once_in_order_and_uncounted"),
    (bugs.ReplaysForEveryone, "test_a_replay_goes_to_the_failing_subscription_alone"),
    (bugs.ReplaysInTwoSteps, "test_replays_at_the_same_time_move_a_letter_once"),
    (bugs.ForgetsInterruptions, "test_interrupting_before_the_fetch_counts_for_one_fetch"),
    (bugs.ReturnsToTheEnd, "test_what_comes_back_goes_before_what_is_new"),
    (bugs.UsesLettersIdsAgain, "test_an_id_is_never_used_again"),
    (dedupe_bugs.RemembersBeforeItKeeps, "test_a_cancelled_append_once_can_be_repeated"),
    (dedupe_bugs.KeepsBeforeItRemembers, "test_a_cancelled_append_once_can_be_repeated"),
    (dedupe_bugs.KeepsBeforeItRemembers, "test_of_publishers_at_the_same_time_one_is_heard"),
    (dedupe_bugs.LooksAndThenKeeps, "test_of_publishers_at_the_same_time_one_is_heard"),
    (dedupe_bugs.ForgetsTheOldestIds, "test_many_ids_are_remembered_each"),
    (dedupe_bugs.ForgetsAllIdsTogether, "test_each_id_has_its_own_window"),
    (dedupe_bugs.LengthensTheWindow, "test_a_window_ends_however_often_it_was_knocked_at"),
    (dedupe_bugs.TellsNoKeysApart, "test_ids_are_told_apart_by_their_keys"),
    (dedupe_bugs.RemembersWithoutAWindow, "test_without_a_window_nothing_is_looked_for_or_remembered"),
    (dedupe_bugs.FoldsIds, "test_ids_may_be_any_text"),
    (dedupe_bugs.LooksAmongWhatIsKept, "test_what_all_have_settled_is_remembered_all_the_same"),
    (dedupe_bugs.RemembersWhatIsNotEmitted, "test_who_lost_the_lease_leaves_no_id_behind"),
    (dedupe_bugs.EmitsWithoutLooking, "test_what_is_emitted_is_passed_over_as_well"),
    (order_bugs.HandsOutWithoutThePlace, "test_only_one_handle_has_the_place"),
    (order_bugs.HandsOutWithoutThePlace, "test_who_lost_the_place_gets_and_changes_nothing"),
    (order_bugs.TakesOverOnlyWhatItFetches, "test_who_lost_the_place_gets_and_changes_nothing"),
    (order_bugs.TakesOverWhatOthersHave, "test_leases_of_others_come_before_the_place"),
    (order_bugs.LeavesWhatIsDelayed, "test_who_gains_the_place_gets_what_waits_for_another_attempt"),
    (order_bugs.LeavesWhatIsDelayed, "test_what_comes_back_goes_first_and_in_order"),
    (order_bugs.BeginsWithWhatIsNew, "test_what_comes_back_goes_first_and_in_order"),
    (order_bugs.NeverLeaves, "test_closing_hands_the_place_over_at_once"),
    (order_bugs.NeverLosesThePlace, "test_the_place_of_a_dead_handle_is_free_after_its_lease"),
    (order_bugs.LosesThePlaceWhileItWaits, "test_waiting_and_extending_keep_the_place"),
    (order_bugs.PutsBackWhatIsPostponed, "test_what_is_postponed_stays_in_hand"),
    (order_bugs.TakesAgainWhatItHas, "test_nobody_else_means_nothing_lost"),
]


def run(bug, test, *, patience):
    provider = bug if issubclass(bug, bugs.Sound) else type(bug.__name__, (bugs.Sound,), {"handle": bug})
    suite = BackendConformance()
    suite.make_backend = lambda _: provider()
    suite.lease, suite.pause, suite.patience = 0.05, 0.01, patience
    getattr(suite, test)()


@pytest.mark.parametrize(("bug", "test"), BUGS, ids=lambda value: getattr(value, "__name__", value))
def test_the_suite_fails_on(bug, test):
    with pytest.raises(AssertionError):
        run(bug, test, patience=0.4)


@pytest.mark.parametrize("test", sorted({test for _, test in BUGS}))
def test_the_suite_passes_without_the_bug(test):
    run(bugs.Sound, test, patience=10.0)
