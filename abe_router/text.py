"""Text for people: durations, rates, counts, times, masking, suggestions.

Durations and rates are written as the routes file writes them, so that what a message prints can be
copied into the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice

_DURATION_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: The form of a duration, as a regular expression that Python and ECMA-262 read alike.
DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
#: The form of a rate, as a regular expression that Python and ECMA-262 read alike.
RATE_PATTERN = r"^[0-9]+(\.[0-9]+)?/(s|m|h)$"
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/(s|m|h)")

#: What ends a line in YAML. `str.splitlines` also splits at control characters, which no editor does.
LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
#: Longest duration, in seconds: a year.
MAX_SECONDS = 366 * 24 * 3600.0
#: Highest and lowest rate, in messages a second: a million a second, and one a year.
MAX_RATE, MIN_RATE = 1_000_000.0, 1 / MAX_SECONDS

#: Longest name that a suggestion is made for, in characters, most names that it is chosen from, and most
#: pairs of characters that are compared for it.
MAX_NAME, MAX_KNOWN, MAX_WORK = 100, 5000, 100_000
#: Longest text that a duration or a rate is suggested for, in characters.
MAX_MISSPELT = 100

_WORD = re.compile(r"\S+")
#: An option in the query of a URL. Names are bounded, so that a long text is read once.
_URL_OPTION = re.compile(r"([?&])([\w.-]{1,64})=([^&\s\"'#]+)")
_SECRET_NAME = re.compile(r"pass|secret|token|auth|credential", re.IGNORECASE)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text without their ends."""
    lines = LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def foreign_detail(text: str) -> str:
    """Return what another library says of a fault, as a detail behind our own words."""
    return f"(in detail: {text[:1].lower()}{text[1:]})"


def parse_duration(text: str) -> float:
    """Return the duration in seconds; raise ValueError when `text` is not one, or is longer than a year."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a duration")
    # Milliseconds are divided, not multiplied: 200 * 0.001 is not 0.2 in floating point.
    number, unit = float(match[1]), match[2]
    seconds = number / 1000 if unit == "ms" else number * _DURATION_UNITS[unit]
    if seconds > MAX_SECONDS:
        raise ValueError(f"`{text}` is longer than a year")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a length of time as a routes file writes it: `200ms`, `1.5s`, `90s`, `5m`, `7d`.

    The unit is the largest that leaves a whole number. Where none does, it is seconds, or milliseconds
    below one second, rounded to four significant digits.
    """
    if seconds <= 0:
        return "0s"
    for unit in ("d", "h", "m"):
        if seconds % _DURATION_UNITS[unit] == 0:
            return f"{seconds / _DURATION_UNITS[unit]:.0f}{unit}"
    if seconds < 1:
        return f"{_significant(seconds * 1000)}ms"
    return f"{_significant(seconds)}s"


def suggest_duration(text: str) -> str:
    """Return the duration that `text` most likely means, or an empty string."""
    if len(text) > MAX_MISSPELT:
        return ""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
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


def parse_rate(text: str) -> float:
    """Return the rate in messages a second; raise ValueError when `text` is not one, or is out of bounds."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a rate")
    rate = float(match[1]) / _RATE_UNITS[match[2]]
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"`{text}` is not between one a year and a million a second")
    return rate


def format_rate(rate: float) -> str:
    """Return a rate, in messages a second, as a routes file writes it: `100/s`, `90/m`.

    The unit is the smallest that leaves a whole number. Where none does, six digits are significant.
    """
    numbers = {unit: round(rate * seconds, 6) for unit, seconds in _RATE_UNITS.items()}
    for unit, number in numbers.items():
        if number >= 1 and number.is_integer():
            return f"{number:.0f}/{unit}"
    return f"{_significant(rate, 6)}/s" if rate >= 1 else f"{_significant(rate * 3600, 6)}/h"


def suggest_rate(text: str) -> str:
    """Return the rate that `text` most likely means, or an empty string."""
    if len(text) > MAX_MISSPELT:
        return ""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:/|per|p|an?)?\s*([A-Za-z]*)", text.strip())
    if match is None or float(match[1]) == 0:
        return ""
    for unit in ("second", "minute", "hour"):
        if unit.startswith(match[2].lower()):
            return f"{match[1]}/{unit[0]}"
    return ""


def format_age(seconds: float) -> str:
    """Return an age in its largest unit, below a day in hours and minutes: `42s`, `7m`, `3h12m`, `5d`."""
    age = max(0, int(seconds))
    if age < 60:
        return f"{age}s"
    if age < 3600:
        return f"{age // 60}m"
    if age < 86_400:
        return f"{age // 3600}h{age % 3600 // 60:02}m"
    return f"{age // 86_400:,}d"


def format_time(seconds: float) -> str:
    """Return a time, given in seconds since the epoch, as UTC to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_until(seconds: float, now: float) -> str:
    """Return a time to come, both in seconds since the epoch: `14:20 UTC`, with the date if not today."""
    then = datetime.fromtimestamp(seconds, UTC)
    same_day = then.date() == datetime.fromtimestamp(now, UTC).date()
    return then.strftime("%H:%M UTC" if same_day else "%Y-%m-%d %H:%M UTC")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 route`, `1,200 routes`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def suggestion(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the name of `known` that `name` is most likely a misspelling of, None if there is none.

    The work is bounded: a long name has no suggestion, and of many similar ones only the first are compared.
    """
    if len(name) > MAX_NAME:
        return None
    letters, left, names = set(name), MAX_WORK, []
    for each in islice(known, MAX_KNOWN):
        both = len(name) + len(each)
        # `ratio` is twice the characters in common, divided by those of both.
        if 2 * min(len(name), len(each)) < cutoff * both or not letters & set(each):
            continue
        left -= len(name) * len(each)
        if left < 0 and each != name:
            break
        names.append(each)
    return next(iter(get_close_matches(name, names, 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean `NAME`?" for the closest name of `known`, empty if none is close."""
    close = suggestion(name, known)
    return f"did you mean `{close}`?" if close else ""


def printable(text: str) -> str:
    """Return `text` with every character escaped that could move a cursor, hide or reorder characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, longest: int) -> str:
    """Return `text`, with its middle cut out where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def json_safe(text: str) -> str:
    """Escape lone surrogates, which JSON cannot carry: names of files need not be UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def recordable(text: str, longest: int) -> str:
    """Return what a person wrote, fit for a stored record: shortened, and without credentials."""
    return json_safe(shortened(mask_credentials(text[: 2 * longest]), longest))


def mask_credentials(text: str) -> str:
    """Return `text` without the user names and passwords of URLs, and the secret options in their queries."""
    if "://" in text:
        text = _WORD.sub(_without_user, text)
    return mask_options(text)


def mask_options(text: str) -> str:
    """Return `text` with a star for each character of a password, token or secret in the query of a URL."""
    return _URL_OPTION.sub(_without_secret, text) if "=" in text else text


def is_secret_name(name: str) -> bool:
    """Return whether the value of an option of this name is a secret."""
    return _SECRET_NAME.search(name) is not None


def redact_url(url: str) -> str:
    """Return a URL without user name, password and query, fit for a log or a message.

    A `?` that is not percent-encoded may be a part of the password.
    """
    scheme, separator, rest = url.partition("://")
    _, at, host = (rest if separator else url).rpartition("@")
    shown = f"***@{host}" if at else host
    return (f"{scheme}://{shown}" if separator else shown).partition("?")[0]


def _without_user(match: re.Match[str]) -> str:
    word = match[0]
    start, end = word.find("://"), word.rfind("@")
    return f"{word[:start]}://***@{word[end + 1 :]}" if 0 <= start < end else word


def _without_secret(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    return f"{mark}{name}={'*' * len(value)}" if is_secret_name(name) else match[0]


def _significant(number: float, digits: int = 4) -> str:
    """Return a positive number with that many significant digits, and never with an exponent."""
    decimals = max(0, digits - 1 - math.floor(math.log10(number)))
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
