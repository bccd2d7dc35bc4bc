"""Durations as the file writes them: `200ms`, `30s`, `5m`, `2h`, `7d`."""

from __future__ import annotations

import re

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: The form of a duration, as a regular expression that Python and ECMA-262 read alike.
PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")

#: Longest duration, in seconds: a year.
MAX_SECONDS = 366 * 24 * 3600.0


def parse_duration(text: str) -> float:
    """Return the duration in seconds; raise ValueError when it is none, or longer than a year."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a duration")
    # Milliseconds are divided, not multiplied: 200 * 0.001 is not 0.2 in floating point.
    number, unit = float(match[1]), match[2]
    seconds = number / 1000 if unit == "ms" else number * _SECONDS[unit]
    if seconds > MAX_SECONDS:
        raise ValueError(f"`{text}` is longer than a year")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the duration as the file writes it, in the largest unit that leaves it whole."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{round(seconds * 1000, 6):g}ms" if seconds else "0s"


def suggest_duration(text: str) -> str:
    """Return what was probably meant by text that is no duration, or nothing."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match is None:
        return ""
    unit = match[2].lower()
    for name, written in (
        ("ms", "ms"),
        ("mil", "ms"),
        ("s", "s"),
        ("m", "m"),
        ("h", "h"),
        ("d", "d"),
        ("", "s"),
    ):
        if unit.startswith(name):
            return match[1] + written
    return ""
