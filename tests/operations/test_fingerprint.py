"""Fingerprints of dead letters: one for each fault, whatever differs from message to message."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from abe_router.backend import Reason
from abe_router.operations import fingerprint as rules
from abe_router.operations.fingerprint import fingerprint, place, pointer_pattern, shape

OLD = """\
Traceback (most recent call last):
  File "/srv/shop/cache.py", line 3, in load
    return entries[key]
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/shop/billing.py", line {line}, in charge
    post(order)
  File "/venv/lib/python3.12/site-packages/httpx/_api.py", line 17, in post
    raise ConnectTimeout(message)
httpx.ConnectTimeout: no answer of 10.0.0.{line}
and a second line
"""


def invalid(pointer: str, keyword: str, message: str = "") -> Reason:
    return Reason("invalid", "PayloadInvalid", message, pointer=pointer, keyword=keyword)


def failed(message: str, frame: str = "shop:charge", kind: str = "failed") -> Reason:
    return Reason(kind, "KeyError", message, type="KeyError", frame=frame)


def test_indices_and_keys_of_a_pointer_do_not_matter() -> None:
    assert len({fingerprint(invalid(f"/items/{n}/price", "minimum")) for n in range(1_000)}) == 1
    assert pointer_pattern("/items/17/id") == "/items/*/id"
    assert pointer_pattern("/by_id/0b7f1f7e-3d2c-4b1e-9f57-1d4f7ab1c0de/n") == "/by_id/*/n"
    assert pointer_pattern("/shards/9f2c4b1e77/address1/deadbeef") == "/shards/*/address1/deadbeef"
    assert fingerprint(invalid("/items/0", "type")) != fingerprint(invalid("/items/0", "minimum"))


def test_missing_and_unknown_members_differ_by_name() -> None:
    def missing(name: str) -> Reason:
        return invalid("", "required", f"at (root): required: expected property `{name}`, found object")

    def unknown(name: str) -> Reason:
        text = f"at (root): additionalProperties: expected no property `{name}`, found 1"
        return invalid("", "additionalProperties", text)

    assert fingerprint(missing("id")) != fingerprint(missing("total"))
    assert fingerprint(unknown("note")) != fingerprint(unknown("notes"))
    assert fingerprint(unknown("17")) == fingerprint(unknown("18"))
    assert place(missing("total")) == "required `total` at (root)"
    two = "at (root): required: expected property `id`, found {}; at (root): required: expected property `b`"
    assert fingerprint(invalid("", "required", two)) == fingerprint(missing("id"))


def test_failure_with_a_frame_does_not_depend_on_its_message() -> None:
    assert fingerprint(failed("status 520")) == fingerprint(failed("status 503"))
    assert fingerprint(failed("a")) != fingerprint(failed("a", frame="shop:refund"))
    assert place(failed("a")) == "KeyError in shop:charge"


def test_reject_and_failure_without_a_frame_depend_on_the_shape_of_the_message() -> None:
    for frame, kind in (("shop:charge", "rejected"), ("", "failed")):
        one, two, other = (failed(text, frame, kind) for text in ("order 17", "order 18", "no stock"))
        assert fingerprint(one) == fingerprint(two) != fingerprint(other)


def test_timeout_and_max_deliveries_are_one_fault_each() -> None:
    reasons = [Reason(kind, "E", f"after {n}s") for kind in ("timeout", "max_deliveries") for n in (1, 2)]
    assert len({fingerprint(reason) for reason in reasons}) == 2
    assert {place(reason) for reason in reasons} == {""}


def test_dead_letter_of_the_old_format_is_read_from_its_traceback() -> None:
    reasons = [Reason("failed", "ConnectTimeout", f"{n}", OLD.format(line=n)) for n in (3, 44)]
    assert place(reasons[0]) == "httpx.ConnectTimeout in billing:charge"
    assert fingerprint(reasons[0]) == fingerprint(reasons[1])
    known = Reason("failed", "ConnectTimeout", "", type="httpx.ConnectTimeout", frame="billing:charge")
    assert fingerprint(known) == fingerprint(reasons[0])
    assert place(Reason("failed", "OSError", "gone", "no traceback at all")) == "OSError"


def test_fingerprint_has_a_version_and_does_not_change() -> None:
    """A change of the rules needs another prefix, since people and programs keep fingerprints."""
    assert fingerprint(failed("")) == "v1-adfd14548a"
    assert fingerprint(invalid("/items/3/price", "minimum")) == "v1-9579e01e5c"
    assert fingerprint(failed("order 17", "", "rejected")) == "v1-2b3ff6e461"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("order 17 of 2,000 is gone\nmore", "order <n> of <n> is gone"),
        ("order 12345678901234567890", "order <n>"),
        ("gateway answered status 503 after 12.5s", "gateway answered status 503 after <n>s"),
        ("HTTP 520 at https://x.test/a?b=1", "HTTP 520 at <url>"),
        ("'order_id'", "'order_id'"),
        ("no field `total` in 'a long text'", "no field `total` in '<text>'"),
        ("the user's card can't be charged", "the user's card can't be charged"),
        ("user ada@example.com at 10.0.0.3:80", "user <email> at <ip>"),
        ("id 0b7f1f7e-3d2c-4b1e-9f57-1d4f7ab1c0de", "id <uuid>"),
        ("object at 0x7f3a0c1, trace 9f2c4b1e77", "object at <hex>, trace <hex>"),
        ("customer cus_Nf8s7dKx9 of 01ARZ3NDEKTSV4RRFFQ69G5FAV", "customer <id> of <id>"),
        ("since 2026-11-26T10:00:00.5Z", "since <time>"),
        ("  two   spaces ", "two spaces"),
    ],
)
def test_shape_keeps_what_says_what_is_wrong(message: str, expected: str) -> None:
    assert shape(message) == expected


#: Texts that come close to what the rules look for.
words = st.sampled_from(
    [
        "status ",
        "http=",
        "://",
        "a",
        "f0",
        "'",
        '"',
        "`",
        "@",
        ".",
        "-",
        ":",
        "<",
        ">",
        " ",
        "\u00e9",
        "0x",
        "T",
    ]
)
texts = st.lists(words | st.text(max_size=5) | st.integers(0, 10**9).map(str), max_size=25).map("".join)


@given(texts)
@example("0xT://status")
@example("0" * 70 + "a@b.c")
@example("f0://status 503")
def test_shape_of_a_shape_is_itself(text: str) -> None:
    once = shape(text)
    assert shape(once) == once


@given(texts, st.integers(1, 9))
def test_digits_do_not_matter(text: str, step: int) -> None:
    if not re.search("status|http", text, re.IGNORECASE):
        other = re.sub("[0-9]", lambda match: str((int(match[0]) + step) % 10), text)
        assert shape(other) == shape(text)


@given(texts)
def test_shape_is_what_the_rules_say_of_the_whole_line(text: str) -> None:
    line = text.strip().partition("\n")[0]
    line = rules._STATUS.sub(lambda match: match[0].translate(rules._KEEP), line)
    line = re.sub("[0-9]", "0", line)
    for rule in (rules._ID, rules._RULE):
        line = rule.sub(rules._replaced, line)
    assert shape(text) == " ".join(line.translate(rules._KEPT).split())


@given(texts)
def test_any_reason_has_a_fingerprint(text: str) -> None:
    for kind in ("invalid", "malformed", "failed", "rejected", "timeout", "of the future"):
        reason = Reason(kind, text, text, text, text, text)
        assert fingerprint(reason).startswith("v1-")
        place(reason)
