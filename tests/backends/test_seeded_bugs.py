"""The suite finds every seeded bug, and passes on the provider without it."""

from __future__ import annotations

import pytest

from abe_router.conformance import BackendConformance
from tests.limits import HANG

from . import bugs, closing_bugs, dedupe_bugs, key_value_bugs, order_bugs, view_bugs

#: Each bug, and a test of the suite that must fail on it.
BUGS = [
    (bugs.AcksBeforeTheHandler, "test_messages_of_a_dead_worker_come_back_without_traffic"),
    (bugs.AcksBeforeTheHandler, "test_reopening_finds_everything_again"),
    (bugs.NeverReclaims, "test_messages_of_a_dead_worker_come_back_without_traffic"),
    (bugs.NeverReclaims, "test_crash_counts_as_a_delivery_but_not_as_an_attempt"),
    (bugs.ReclaimsWhenThereIsTraffic, "test_messages_of_a_dead_worker_come_back_without_traffic"),
    (bugs.SettlesForAnyone, "test_stale_ack_is_refused"),
    (bugs.SettlesForAnyone, "test_stale_retry_is_refused"),
    (bugs.SettlesForAnyone, "test_stale_dead_letter_is_refused"),
    (bugs.SettlesForAnyone, "test_stale_release_is_refused"),
    (bugs.SettlesForTheSameOwner, "test_handle_is_fenced_from_its_own_earlier_deliveries"),
    (bugs.ExtensionTakesBack, "test_stale_extension_takes_nothing_back"),
    (bugs.ExtensionRevives, "test_extension_does_not_revive_settled_messages"),
    (bugs.RenewsNothing, "test_renewal_while_the_loop_is_blocked_keeps_the_leases"),
    (bugs.RenewsInTheEventLoop, "test_renewal_while_the_loop_is_blocked_keeps_the_leases"),
    (bugs.RenewsAllItHolds, "test_leases_that_are_not_renewed_end_while_the_loop_is_blocked"),
    (bugs.ForgetsWhatIsOnItsWay, "test_renewal_keeps_what_is_on_its_way_to_a_blocked_loop"),
    (bugs.RenewalTakesBack, "test_stale_renewal_takes_nothing_back"),
    (bugs.RenewalRevives, "test_renewal_does_not_revive_settled_messages"),
    (order_bugs.RenewsWithoutTheOwnership, "test_renewal_while_the_loop_is_blocked_keeps_the_ownership"),
    (bugs.GroupsBeginAtTheEnd, "test_new_subscription_gets_what_was_published_before_it"),
    (bugs.GroupsBeginAtTheEnd, "test_late_group_gets_what_another_has_not_settled"),
    (bugs.TrimsByLength, "test_unsettled_messages_are_never_trimmed"),
    (bugs.PublishesAgainWhenTheReplyIsLost, "test_many_publishers_and_many_handles_deliver_once"),
    (bugs.IgnoresTheLimit, "test_fetch_takes_no_more_than_its_limit"),
    (bugs.FetchesAhead, "test_fetch_takes_no_more_than_its_limit"),
    (bugs.WritesTheDeadLetterAndThenAcks, "test_cancelled_dead_letter_is_in_one_state"),
    (bugs.AcksAndThenWritesTheDeadLetter, "test_cancelled_dead_letter_is_in_one_state"),
    (bugs.LosesWhatACancelledFetchBrought, "test_cancelled_fetch_loses_nothing"),
    (bugs.CountsAttemptsInTheWorker, "test_crash_keeps_the_attempt"),
    (bugs.CountsAttemptsInTheWorker, "test_attempts_and_the_first_failure_are_kept"),
    (bugs.PublishesRetriesForEveryone, "test_other_groups_see_nothing_of_a_retry"),
    (bugs.KeepsRetriesInTheWorker, "test_retries_survive_reopening"),
    (bugs.RemovesItsPendingWhenItCloses, "test_closed_handle_holds_nothing_beyond_its_lease"),
    (bugs.CountsWhatIsReleased, "test_released_messages_come_back_at_once_in_order_and_uncounted"),
    (bugs.ReplaysForEveryone, "test_replay_goes_to_the_failing_subscription_alone"),
    (bugs.ReplaysInTwoSteps, "test_concurrent_replays_move_a_dead_letter_once"),
    (bugs.ForgetsInterruptions, "test_interrupting_before_a_fetch_counts_for_one_fetch"),
    (bugs.ReturnsToTheEnd, "test_returned_messages_come_before_new_ones"),
    (
        bugs.ReadsNewOnesEverySecondTime,
        "test_message_released_several_times_comes_before_new_ones",
    ),
    (bugs.UsesDeadLetterIdsAgain, "test_id_of_a_dead_letter_is_never_used_again"),
    (dedupe_bugs.RemembersBeforeItKeeps, "test_cancelled_append_once_can_be_repeated"),
    (dedupe_bugs.KeepsBeforeItRemembers, "test_cancelled_append_once_can_be_repeated"),
    (dedupe_bugs.KeepsBeforeItRemembers, "test_one_of_several_publishers_at_the_same_time_is_kept"),
    (dedupe_bugs.ComparesAndThenKeeps, "test_one_of_several_publishers_at_the_same_time_is_kept"),
    (dedupe_bugs.ForgetsTheOldestIds, "test_many_ids_are_all_remembered"),
    (dedupe_bugs.ForgetsAllIdsTogether, "test_each_id_has_its_own_window"),
    (dedupe_bugs.LengthensTheWindow, "test_duplicates_do_not_lengthen_the_window"),
    (dedupe_bugs.ComparesIdsOfAllKeys, "test_same_id_under_another_key_is_no_duplicate"),
    (dedupe_bugs.RemembersWithoutAWindow, "test_message_without_a_window_is_not_compared_or_remembered"),
    (dedupe_bugs.FoldsIds, "test_ids_may_be_any_text"),
    (dedupe_bugs.ComparesWithKeptMessagesAlone, "test_ids_of_settled_messages_are_remembered"),
    (dedupe_bugs.RemembersWhatIsNotEmitted, "test_lost_lease_leaves_no_id_behind"),
    (dedupe_bugs.EmitsDuplicates, "test_duplicate_output_is_passed_over"),
    (order_bugs.DeliversWithoutOwnership, "test_only_one_handle_is_the_owner"),
    (order_bugs.DeliversWithoutOwnership, "test_former_owner_gets_and_changes_nothing"),
    (order_bugs.TakesOverOnlyWhatItFetches, "test_former_owner_gets_and_changes_nothing"),
    (order_bugs.TakesOverLeasesOfOthers, "test_ownership_waits_for_leases_of_other_handles"),
    (order_bugs.LeavesWhatIsDelayed, "test_new_owner_gets_what_waits_for_its_next_attempt"),
    (order_bugs.LeavesWhatIsDelayed, "test_returned_messages_come_first_and_in_order"),
    (order_bugs.BeginsWithWhatIsNew, "test_returned_messages_come_first_and_in_order"),
    (order_bugs.NeverReleasesOwnership, "test_closing_releases_the_ownership_at_once"),
    (order_bugs.OwnershipNeverEnds, "test_ownership_of_a_dead_handle_ends_with_its_lease"),
    (order_bugs.LosesOwnershipWhileItWaits, "test_waiting_and_extending_keep_the_ownership"),
    (order_bugs.PutsBackWhatIsPostponed, "test_postponed_delivery_stays_in_flight"),
    (order_bugs.FetchesAgainWhatItHolds, "test_owner_without_competitors_keeps_what_it_holds"),
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
    (view_bugs.LooksAtTheLastDelayed, "test_next_due_at_is_when_the_first_delayed_message_is_due"),
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
    (view_bugs.PeekEndsAtTheBeginning, "test_peek_from_the_end_shows_only_what_is_accepted_later"),
    (view_bugs.PeekBeginsAgainWithAWrongCursor, "test_peek_refuses_what_is_not_a_cursor"),
    (view_bugs.PeekEndsOneTooFar, "test_peek_from_the_end_shows_only_what_is_accepted_later"),
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
#: Parts of the names of tests that take longer than the others.
LONGER = (
    "loop_is_blocked",
    "keep_the_ownership",
    "blocked_loop",
    "costs_the_same",
    "leave_nothing",
    "one_of_several",
    "_ttl",
)
TESTS = [
    pytest.param(test, marks=pytest.mark.alone if getattr(BackendConformance, test).measures_time else ())
    for test in sorted({test for _, test in BUGS})
]


def run(bug, test, *, patience):
    provider = bug if issubclass(bug, bugs.Sound) else type(bug.__name__, (bugs.Sound,), {"handle": bug})
    suite = BackendConformance()
    suite.make_backend = lambda _: provider()
    suite.lease, suite.pause, suite.patience = 0.05, 0.01, patience
    suite.backlog, suite.entries = 5_000, 2_000  # a bug shows with fewer than a provider should have
    getattr(suite, test)()


@pytest.mark.parametrize(("bug", "test"), BUGS, ids=lambda value: getattr(value, "__name__", value))
def test_suite_finds_the_bug(bug, test):
    with pytest.raises(AssertionError):
        run(bug, test, patience=20.0 if any(part in test for part in LONGER) else 0.4)


@pytest.mark.parametrize("test", TESTS)
def test_suite_passes_without_the_bug(test):
    run(bugs.Sound, test, patience=HANG)
