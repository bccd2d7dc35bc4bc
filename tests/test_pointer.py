"""JSON pointers of RFC 6901."""

from __future__ import annotations

import pytest

from abe_router.messages.pointer import find, is_pointer

#: The document of the RFC, section 5, with more members.
DOCUMENT = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "m~n": 8,
    "01": 9,
    "deep": {"er": [{"x": None}]},
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/m~0n", 8),
        ("/01", 9),
        ("/deep/er/0/x", None),
    ],
)
def test_pointer_finds_its_value(pointer, value):
    assert is_pointer(pointer)
    assert find(DOCUMENT, pointer) == value


@pytest.mark.parametrize(
    "pointer", ["/bar", "/foo/2", "/foo/01", "/foo/-", "/foo/bar", "/foo/0/x", "/deep/er/x"]
)
def test_pointer_to_a_missing_value_raises_lookup_error(pointer):
    with pytest.raises(LookupError):
        find(DOCUMENT, pointer)


@pytest.mark.parametrize("text", ["", "foo", "$.foo", "/a~b", "/a~2", "foo/bar"])
def test_invalid_text_is_not_a_pointer(text):
    assert not is_pointer(text)
