"""Numbers, durations and times as the pages write them: `1,340`, `9.6 s`, `12 s ago`.

Units are in `<small>`, and a zero is muted, so that columns of figures are quiet. The filters return safe
HTML; what they are given is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from markupsafe import Markup, escape

from abe_router.text import printable, shortened

#: Ages below this, in seconds, are relative ("12 s ago"). Older times are clock times.
FRESH = 120.0
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_ZERO = Markup('<span class="zero">0</span>')
_NONE = Markup('<span class="zero">–</span>')


def count(value: float | None) -> str:
    """Return a number of things: `1,340`; `–` if it is not known."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if value else _ZERO


def rate(value: float | None) -> str:
    """Return a number a second: `412`, `18.5`, `0.4`, `0.05`."""
    if value is None:
        return _NONE
    if value < 0.005:
        return _ZERO
    digits = 0 if value >= 100 else 1 if value >= 0.1 else 2
    return f"{value:,.{digits}f}"


def duration(value: float | None) -> Markup:
    """Return a duration in seconds with its unit: `310 ms`, `9.6 s`, `41 min`."""
    if value is None:
        return _NONE
    number, unit = split_duration(value)
    text = f"{number} <small>{unit}</small>"
    return Markup(text if value else f'<span class="zero">{text}</span>')  # noqa: S704  digits and a unit


def split_duration(value: float) -> tuple[str, str]:
    """Return a duration in seconds as a number and its unit."""
    value = max(0.0, value)
    if value < 1:
        return (_short(value * 1000), "ms") if value else ("0", "s")
    for size, unit in _UNITS:
        if value >= size:
            return _short(value / size), unit
    return "0", "s"


def _short(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0") if amount < 10 else f"{amount:,.0f}"


def moment(at: float | None, now: float | None = None) -> Markup:
    """Return a time since the epoch as `<time>`: relative if it is fresh, else by the clock (UTC)."""
    if at is None or not 0 < at < 253_402_300_800:
        return _NONE
    now = time.time() if now is None else now
    when = datetime.fromtimestamp(at, UTC)
    age = now - at
    if 0 <= age < FRESH:
        shown = f"{age:.0f} s ago"
    elif abs(age) < 12 * 3600:
        shown = f"{when:%H:%M:%S}" if abs(age) < 3600 else f"{when:%H:%M}"
    else:
        shown = f"{when:%Y-%m-%d %H:%M}"
    return _time_element(when, shown)


def clock(at: float) -> Markup:
    """Return a time since the epoch as `<time>`, by the clock with milliseconds (UTC)."""
    if not 0 < at < 253_402_300_800:
        return _NONE
    when = datetime.fromtimestamp(at, UTC)
    return _time_element(when, f"{when:%H:%M:%S.%f}"[:-3])


def _time_element(when: datetime, shown: str) -> Markup:
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{when:%Y-%m-%dT%H:%M:%SZ}", f"{when:%Y-%m-%d %H:%M:%S} UTC", shown
    )


def age(at: float | None, now: float | None = None) -> Markup:
    """Return how long ago a time since the epoch was, as a duration."""
    return duration(None if at is None else max(0.0, (time.time() if now is None else now) - at))


#: The shapes of the states. They differ without colour.
_ICONS: Mapping[str, str] = {
    "running": '<circle cx="5" cy="5" r="3.5" fill="currentColor"/>',
    "paused": '<path d="M1.5 1h2.5v8H1.5zM6 1h2.5v8H6z" fill="currentColor"/>',
    "limited": '<path d="M5 .5L9.5 5 5 9.5.5 5z" fill="none" stroke="currentColor" stroke-width="1.8"/>',
    "behind": '<path d="M5 .8L9.6 9.2H.4z" fill="currentColor"/>',
    "stale": '<circle cx="5" cy="5" r="3.8" fill="none" stroke="currentColor" stroke-width="1.8"'
    ' stroke-dasharray="2 1.6"/>',
    "failing": '<path d="M1.5 1.5l7 7m0-7l-7 7" stroke="currentColor" stroke-width="2.2"/>',
}
#: The class of each state: `ok`, `warn` or `bad`.
LEVELS: Mapping[str, str] = {
    "running": "ok",
    "paused": "warn",
    "limited": "warn",
    "behind": "warn",
    "stale": "warn",
    "failing": "bad",
}


@cache
def icon(state: str) -> Markup:
    """Return the shape of a state as an SVG element."""
    return Markup('<svg class="{}" viewBox="0 0 10 10" aria-hidden="true">{}</svg>').format(
        LEVELS[state],
        Markup(_ICONS[state]),  # noqa: S704  a constant of this module
    )


def ticked(text: object) -> Markup:
    """Return a message with what it has in backticks as code."""
    parts = printable(str(text)).split("`")
    if len(parts) % 2 == 0:
        return escape("`".join(parts))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)
    )


def plain(text: object, longest: int = 1_000) -> str:
    """Return text in which no character hides or reorders others, with its middle cut out if it is long."""
    return printable(shortened(str(text), longest))


FILTERS: Mapping[str, Callable[..., Any]] = {
    "count": count,
    "rate": rate,
    "duration": duration,
    "moment": moment,
    "age": age,
    "clock": clock,
    "plain": plain,
    "ticked": ticked,
}
