"""Waits between attempts, and silences between words."""

from __future__ import annotations

from abe_router.consumer.pause import LONGEST_PAUSE, LONGEST_SILENCE, Pause, Silence


def test_pauses_grow_up_to_the_longest():
    pause = Pause()
    lengths = [pause.next() for _ in range(20)]
    assert lengths[0] <= 0.1
    assert LONGEST_PAUSE / 2 <= lengths[-1] <= LONGEST_PAUSE


def test_an_outage_of_a_day_is_told_at_once_and_then_after_ever_longer_silences():
    silence = Silence()
    told = [second for second in range(24 * 3600) if silence.over(second)]
    assert told[:5] == [0, 10, 30, 70, 150]
    assert told[-1] - told[-2] == LONGEST_SILENCE
