"""Durations, rates and the other texts of messages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abe_router.text import (
    MAX_RATE,
    MAX_SECONDS,
    MIN_RATE,
    counted,
    did_you_mean,
    format_age,
    format_duration,
    format_rate,
    format_time,
    mask_credentials,
    parse_duration,
    parse_rate,
    printable,
    redact_url,
    suggest_duration,
    suggest_rate,
    suggestion,
)


@given(st.floats(0.001, MAX_SECONDS))
def test_a_duration_is_parsed_as_what_was_formatted(seconds):
    text = format_duration(seconds)
    assert "e" not in text
    assert parse_duration(text) == pytest.approx(seconds, rel=5e-4)


@given(st.integers(1, int(MAX_SECONDS)))
def test_a_duration_of_whole_seconds_loses_nothing(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(
        seconds, rel=0 if seconds < 10_000 else 1e-3
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.2, "200ms"),
        (0.9999, "999.9ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (90, "90s"),
        (300, "5m"),
        (1234.5678, "1235s"),
        (86_400, "1d"),
        (604_800, "7d"),
        (0.000_000_1, "0.0001ms"),
    ],
)
def test_a_duration_has_the_largest_unit_that_leaves_a_whole_number(seconds, text):
    assert format_duration(seconds) == text


@given(st.floats(MIN_RATE * 1.001, MAX_RATE))
def test_a_rate_is_parsed_as_what_was_formatted(rate):
    text = format_rate(rate)
    assert "e" not in text
    assert parse_rate(text) == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(100, "100/s"), (1.5, "90/m"), (1 / 60, "1/m"), (0.5 / 3600, "0.5/h"), (1e6, "1000000/s")],
)
def test_a_rate_has_the_smallest_unit_that_leaves_a_whole_number(rate, text):
    assert format_rate(rate) == text


@pytest.mark.parametrize("text", ["", "5", "5 s", "-1s", "1e3s", "5S", ".5s", "367d"])
def test_invalid_duration_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(f"`{text}`")):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "5 /s", "0/s", "1e3/s", "5/d", "2000000/s"])
def test_invalid_rate_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(f"`{text}`")):
        parse_rate(text)


def test_suggestion_is_the_closest_valid_text():
    assert suggest_duration("5 Minutes") == "5m"
    assert suggest_duration("200 millis") == "200ms"
    assert suggest_duration("soon") == ""
    assert suggest_rate("10 per second") == "10/s"
    assert suggest_rate("0/s") == ""
    assert suggestion("concurency", ["concurrency", "timeout"]) == "concurrency"
    assert did_you_mean("concurency", ["concurrency"]) == "did you mean `concurrency`?"
    assert did_you_mean("entirely different", ["concurrency"]) == ""


def test_counts_and_times_are_formatted():
    assert [counted(n, "route") for n in (0, 1, 1200)] == ["0 routes", "1 route", "1,200 routes"]
    assert format_time(0) == "1970-01-01T00:00:00Z"


def test_credentials_and_control_characters_are_removed():
    assert mask_credentials("lost redis://me:p@ss@host/0 again") == "lost redis://***@host/0 again"
    assert redact_url("redis://me:pw@host/0?password=x") == "redis://***@host/0"
    assert redact_url("redis://:S3CRET?x@host/0") == "redis://***@host/0"
    assert redact_url("redis:me:S3CRET@host") == "***@host"
    assert (
        mask_credentials("at redis://h?ssl_password=S3CRET&db=1") == "at redis://h?ssl_password=******&db=1"
    )
    assert printable("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3_900, "1h05m"), (200_000, "2d")]
)
def test_age_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
