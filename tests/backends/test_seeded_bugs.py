"""The suite sees every bug that was put into a provider, and nothing where there is none."""

from __future__ import annotations

import pytest

from abe_router.conformance import BackendConformance

from . import bugs, closing_bugs, dedupe_bugs, key_value_bugs, order_bugs, view_bugs

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
    (closing_bugs.ReturnsNothingOnceClosed, "test_closing_a_handle_ends_its_fetch"),
    (closing_bugs.ReturnsNothingOnceClosed, "test_fetch_on_a_closed_handle_raises"),
    (closing_bugs.RaisesOnlyBeforeItWaits, "test_closing_a_handle_ends_its_fetch"),
    (closing_bugs.RaisesOnlyBeforeItWaits, "test_closing_the_backend_ends_every_fetch"),
    (closing_bugs.ClosesWithoutWaking, "test_closing_a_handle_ends_its_fetch"),
    (closing_bugs.WaitsOnThoughTheBackendIsClosed, "test_closing_the_backend_ends_every_fetch"),
    (closing_bugs.OpensItsHandlesAgain, "test_handle_stays_closed_when_its_backend_is_opened_again"),
    (closing_bugs.KeepsWhatAClosedFetchBrought, "test_closing_during_a_fetch_loses_nothing"),
    (view_bugs.ListsSubscriptionsInAnyOrder, "test_status_has_every_subscription_once_in_order"),
    (view_bugs.CountsTheAgeOfWhatIsInFlight, "test_oldest_at_is_when_the_oldest_ready_message_was_accepted"),
    (view_bugs.ForgetsTheAgeOfWhatCameBack, "test_oldest_at_is_when_the_oldest_ready_message_was_accepted"),
    (
        view_bugs.KnowsTheAgeOfItsFirstKeyAlone,
        "test_oldest_at_covers_all_keys_of_one_subscription",
    ),
    (view_bugs.TellsNoSubscriptionsApart, "test_oldest_at_covers_all_keys_of_one_subscription"),
    (view_bugs.LooksAtAllForTheOldest, "test_status_costs_the_same_with_a_long_backlog"),
    (view_bugs.PeeksByFetching, "test_peek_shows_the_state_and_deliveries_of_each_message"),
    (view_bugs.PeekForgetsWhatIsDelayed, "test_peek_shows_the_state_and_deliveries_of_each_message"),
    (view_bugs.PeekCountsAsADelivery, "test_peek_changes_nothing"),
    (view_bugs.PeekRenewsLeases, "test_peek_renews_no_lease"),
    (view_bugs.PeekMakesTheSubscription, "test_peek_of_an_unknown_subscription_is_empty_and_makes_none"),
    (view_bugs.PeekDecodesBodies, "test_peek_shows_messages_as_they_were_published"),
    (view_bugs.PeekHidesWhatIsSettled, "test_peek_without_a_group_shows_what_is_retained"),
    (view_bugs.PeekHidesWhatIsSettled, "test_peek_shows_settled_messages_only_without_a_group"),
    (view_bugs.PeekShowsWhatIsSettled, "test_peek_shows_settled_messages_only_without_a_group"),
    (view_bugs.PeekIgnoresItsLimit, "test_pages_show_each_message_once"),
    (view_bugs.PeekBeginsWithWhatWasSeen, "test_pages_show_each_message_once"),
    (view_bugs.PeekGoesKeyByKey, "test_what_is_accepted_later_comes_behind_the_cursor"),
    (view_bugs.PeekStumblesOverATrim, "test_peek_beside_settle_and_trim_neither_fails_nor_stops_them"),
    (view_bugs.PeekReadsEverything, "test_page_of_a_peek_costs_the_same_with_a_long_backlog"),
    (key_value_bugs.KeepsValuesAsText, "test_put_value_is_read_by_every_backend"),
    (key_value_bugs.TakesEmptyForGone, "test_put_value_is_read_by_every_backend"),
    (key_value_bugs.FindsWhatIsNotThere, "test_absent_entry_is_none"),
    (key_value_bugs.DeletesForGetAlone, "test_deleted_entry_is_gone"),
    (key_value_bugs.IgnoresTheRevision, "test_put_compares_the_revision_it_expects"),
    (key_value_bugs.DeletesAnyRevision, "test_delete_compares_the_revision_it_expects"),
    (key_value_bugs.ComparesNothingWithNoEntry, "test_expecting_no_entry_creates_one_and_replaces_none"),
    (key_value_bugs.ComparesAndPutsInTwoSteps, "test_one_of_several_writers_wins"),
    (key_value_bugs.ComparesAndPutsInTwoSteps, "test_handles_lose_no_update"),
    (key_value_bugs.GivesRevisionsAgain, "test_revision_rises_and_is_never_given_twice"),
    (key_value_bugs.NeverExpires, "test_entry_expires_after_its_ttl_unless_it_is_put_again"),
    (key_value_bugs.ExpiresByTheFirstPut, "test_entry_expires_after_its_ttl_unless_it_is_put_again"),
    (key_value_bugs.MovesTheEndOfWhatItRefuses, "test_put_that_is_refused_changes_no_ttl"),
    (key_value_bugs.JoinsBucketsAndNames, "test_buckets_are_separate"),
    (key_value_bugs.SharesItsStore, "test_prefixes_are_separate"),
    (key_value_bugs.FoldsNames, "test_names_may_be_any_text"),
    (key_value_bugs.ForgetsEntriesWhenItCloses, "test_entries_survive_reopening"),
    (key_value_bugs.PutsInTwoSteps, "test_cancelled_put_keeps_the_old_value_or_the_new_one"),
    (key_value_bugs.KeepsEachBucketAsOneValue, "test_put_costs_the_same_with_ten_thousand_entries"),
    (key_value_bugs.KeepsWhatHasExpired, "test_expired_and_replaced_entries_leave_nothing_in_this_process"),
]
#: Part of the names of tests that take longer where there is no bug.
LONGER = ("costs_the_same", "leave_nothing", "one_of_several", "ttl")


def run(bug, test, *, patience):
    provider = bug if issubclass(bug, bugs.Sound) else type(bug.__name__, (bugs.Sound,), {"handle": bug})
    suite = BackendConformance()
    suite.make_backend = lambda _: provider()
    suite.lease, suite.pause, suite.patience = 0.05, 0.01, patience
    getattr(suite, test)()


@pytest.mark.parametrize(("bug", "test"), BUGS, ids=lambda value: getattr(value, "__name__", value))
def test_the_suite_fails_on(bug, test):
    with pytest.raises(AssertionError):
        run(bug, test, patience=20.0 if any(part in test for part in LONGER) else 0.4)


@pytest.mark.parametrize("test", sorted({test for _, test in BUGS}))
def test_the_suite_passes_without_the_bug(test):
    run(bugs.Sound, test, patience=10.0)
