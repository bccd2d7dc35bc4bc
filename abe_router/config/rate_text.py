"""Rates as the file writes them: `100/s`, `90/m`, `5000/h`."""

from __future__ import annotations

import re

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: The form of a rate, as a regular expression that Python and ECMA-262 read alike.
PATTERN = r"^[0-9]+(\.[0-9]+)?/(s|m|h)$"
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/(s|m|h)")

#: Highest and lowest rate, in messages a second: more than any handler does, and one a year.
MOST, LEAST = 1_000_000.0, 1 / (366 * 24 * 3600)


def parse_rate(text: str) -> float:
    """Return the rate in messages a second; raise ValueError when it is none, or out of bounds."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a rate")
    rate = float(match[1]) / _SECONDS[match[2]]
    if not LEAST <= rate <= MOST:
        raise ValueError(f"`{text}` is not between one a year and a million a second")
    return rate


def format_rate(rate: float) -> str:
    """Return the rate as the file writes it, in the smallest unit that leaves it whole."""
    numbers = {unit: round(rate * seconds, 6) for unit, seconds in _SECONDS.items()}
    for unit, number in numbers.items():
        if number >= 1 and number.is_integer():
            return f"{number:.0f}/{unit}"
    return f"{numbers['s']:.6g}/s" if rate >= 1 else f"{numbers['h']:.6g}/h"


def suggest_rate(text: str) -> str:
    """Return what was probably meant by text that is no rate, or nothing."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:/|per|p|an?)?\s*([A-Za-z]*)\s*", text)
    if match is None or float(match[1]) == 0:
        return ""
    for unit in ("second", "minute", "hour"):
        if unit.startswith(match[2].lower()):
            return f"{match[1]}/{unit[0]}"
    return ""
