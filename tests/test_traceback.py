"""The traceback of a failed attempt is the interpreter's own, without the frames of this package."""

from __future__ import annotations

import linecache
import traceback

import pytest

from abe_router import errors
from abe_router.errors import Reject, user_traceback
from abe_router.messages.message import decode


class Silent(Exception):
    def __str__(self):
        raise RuntimeError


class Outer:
    class Inner(Exception):  # noqa: D106  the name is all it has
        pass


def deep(levels):
    return 1 / 0 if not levels else deep(levels - 1)


def chained():
    try:
        deep(1)
    except ZeroDivisionError as error:
        raise Reject("no price") from error


def in_context():
    try:
        deep(1)
    except ZeroDivisionError:
        raise Reject("no price")  # noqa: B904


def out_of_context():
    try:
        deep(1)
    except ZeroDivisionError:
        raise Reject("no price") from None


def noted():
    error = ValueError("a\nb")
    error.add_note("see the order")
    raise error


def group():
    raise ExceptionGroup("two", [ValueError("one"), Reject("other")])


def raises(error):
    def fail():
        raise error

    return fail


CASES = [
    *(lambda n=n: deep(n) for n in (0, 1, 2, 3, 4, 9)),
    *(chained, in_context, out_of_context, noted, group),
    *map(raises, [Silent(), Outer.Inner("x"), ValueError(), Reject(" "), KeyError("k"), SystemExit(3)]),
    lambda: compile("a b", "x", "exec"),
    lambda: [].apend,
    lambda: lenn,  # noqa: F821
    lambda: __import__("abe_routers"),
]


def failure_of(work):
    try:
        work()
    except BaseException as error:  # noqa: BLE001  SystemExit is one of the cases
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("case", range(len(CASES)))
def test_traceback_is_the_same_as_the_interpreters(case):
    for _ in range(2):  # the second time from the cache
        error = failure_of(CASES[case])
        assert user_traceback(error) == "".join(traceback.format_exception(error))


def test_frames_of_this_package_are_left_out():
    error = failure_of(lambda: decode(b"{"))
    shown = user_traceback(error)
    assert "test_traceback.py" in shown
    assert "message.py" not in shown


def test_frames_of_this_package_are_shown_when_there_is_no_other():
    error = failure_of(lambda: decode(b"{"))
    while "test_traceback" in error.__traceback__.tb_frame.f_code.co_filename:
        error.__traceback__ = error.__traceback__.tb_next
    assert "message.py" in user_traceback(error)


def test_second_failure_at_a_place_reads_no_source(monkeypatch):
    place = raises(Reject("again"))
    first = user_traceback(failure_of(place))
    monkeypatch.setattr(linecache, "getline", None)
    monkeypatch.setattr(linecache, "checkcache", None)
    monkeypatch.setattr(traceback, "extract_tb", None)
    second = failure_of(place)
    second.__traceback__ = second.__traceback__.tb_next
    assert user_traceback(second).splitlines()[-2:] == first.splitlines()[-2:]


def test_cache_of_frames_is_bounded(monkeypatch):
    monkeypatch.setattr(errors, "_frame_texts", {})
    monkeypatch.setattr(errors, "_MOST_FRAMES", 10)
    for number in range(30):
        place: dict[str, object] = {}
        exec(f"def fail():\n    raise ValueError({number})", place)
        assert str(number) in user_traceback(failure_of(place["fail"]))
    assert len(errors._frame_texts) <= 10
