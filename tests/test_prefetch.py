"""How far a consumer reads ahead, by what its handlers and its round take."""

from abe_router.consumer.prefetch import ENOUGH, FIRST_DEPTH, GROWTH, MAX_FETCH, Prefetch


def after_full_fetch(depth: int, *, handling: float | None, round_: float) -> int:
    prefetch = Prefetch()
    prefetch.depth = depth
    prefetch.fetched(10.0, full=True)
    prefetch.asking(10.0 + round_, handling)
    assert prefetch.low_water == prefetch.depth // 2
    return prefetch.depth


def test_handlers_that_keep_up_make_the_prefetch_deeper():
    assert after_full_fetch(0, handling=0.03, round_=0.03) == FIRST_DEPTH
    assert after_full_fetch(FIRST_DEPTH, handling=0.03, round_=0.03) == FIRST_DEPTH * GROWTH


def test_quick_handlers_take_two_steps_at_once():
    assert after_full_fetch(0, handling=0.001, round_=0.001) == FIRST_DEPTH * GROWTH


def test_prefetch_has_a_limit():
    assert after_full_fetch(FIRST_DEPTH * GROWTH, handling=0.001, round_=0.001) == 2 * MAX_FETCH


def test_wait_for_other_routes_is_not_the_time_of_the_handlers():
    assert after_full_fetch(0, handling=0.001, round_=0.2) == FIRST_DEPTH * GROWTH


def test_route_of_a_busy_process_holds_no_more_than_a_large_read():
    assert after_full_fetch(ENOUGH, handling=0.001, round_=0.2) == ENOUGH
    assert after_full_fetch(500, handling=0.001, round_=0.2) == 500
    assert after_full_fetch(ENOUGH, handling=0.001, round_=0.04) == 2 * MAX_FETCH


def test_routes_together_hold_no_more_than_a_second_of_work():
    assert after_full_fetch(100, handling=0.001, round_=0.5) == 100
    assert after_full_fetch(100, handling=0.001, round_=1.5) == 50


def test_slow_handlers_make_the_prefetch_shallower():
    assert after_full_fetch(100, handling=0.1, round_=0.1) == 100
    assert after_full_fetch(100, handling=0.3, round_=0.3) == 50


def test_round_counts_where_the_time_of_the_handlers_is_not_known():
    assert after_full_fetch(100, handling=None, round_=0.3) == 50
    assert after_full_fetch(0, handling=None, round_=0.03) == FIRST_DEPTH


def test_fetch_that_was_not_full_changes_nothing():
    prefetch = Prefetch()
    prefetch.fetched(10.0, full=False)
    prefetch.asking(10.001, 0.001)
    assert prefetch.depth == 0


def test_prefetch_that_is_not_allowed_stays_at_nothing():
    prefetch = Prefetch(allowed=False)
    prefetch.fetched(10.0, full=True)
    prefetch.asking(10.001, 0.001)
    assert prefetch.depth == 0
