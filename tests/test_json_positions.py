"""The positions of values in a JSON text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abe_router.config.language.pointer import JsonPositions
from abe_router.messages.pointer import escape

TEXT = """\
{
  "a": [1, {"b": "x"}, []],
  "\\u0061/~": {"c": null},
  "": {"": true}
}"""


@pytest.mark.parametrize(
    ("pointer", "shown", "line"),
    [
        ("", "{", 1),
        ("/a", '"a"', 2),
        ("/a/0", "1", 2),
        ("/a/1", "{", 2),
        ("/a/1/b", '"x"', 2),
        ("/a/2", "[", 2),
        ("/a~1~0", '"\\u0061/~"', 3),
        ("/a~1~0/c", "null", 3),
        ("/", '""', 4),
        ("//", "true", 4),
        ("/missing", "{", 1),
    ],
)
def test_pointer_is_found_at_its_scalar_or_else_at_its_key(pointer, shown, line):
    span = JsonPositions(TEXT).span(pointer)
    assert span.line == line
    row = TEXT.splitlines()[span.line - 1]
    assert row[span.column - 1 :][: span.width] == shown


def test_key_of_a_scalar_is_found_on_request():
    span = JsonPositions(TEXT).span("/a~1~0/c", of_key=True)
    assert TEXT.splitlines()[span.line - 1][span.column - 1 :][: span.width] == '"c"'


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.sampled_from([None, 1]))
def test_every_scalar_is_found_at_its_own_text(value, indent):
    text = json.dumps(value, indent=indent)
    positions, lines = JsonPositions(text), text.splitlines()
    left = [("", value)]
    while left:
        pointer, each = left.pop()
        if isinstance(each, dict):
            left += [(f"{pointer}/{escape(name)}", inner) for name, inner in each.items()]
        elif isinstance(each, list):
            left += [(f"{pointer}/{index}", inner) for index, inner in enumerate(each)]
        else:
            span = positions.span(pointer)
            assert lines[span.line - 1][span.column - 1 :][: span.width] == json.dumps(each)
