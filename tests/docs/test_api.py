"""docs/api.md has every public name with its signature, and its examples run."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path

import pytest

import abe_router
from abe_router import testing

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
#: Defaults that the page writes shorter than Python does.
WRITTEN = {"<factory>": "{}", repr(abe_router.RetryPolicy()): "RetryPolicy()"}
HEADINGS = re.findall(r"^### `(([\w.]+).*)`$", PAGE.read_text(), re.MULTILINE)


def test_page_has_one_section_for_each_public_name():
    sections = {name.partition(".")[0] for _, name in HEADINGS}
    assert sections == {*abe_router.__all__, *testing.__all__}


@pytest.mark.parametrize(
    ("heading", "name"),
    [(heading, name) for heading, name in HEADINGS if "(" in heading],
    ids=lambda text: text,
)
def test_signature_on_the_page_matches_the_code(heading, name):
    found = abe_router if name.partition(".")[0] in abe_router.__all__ else testing
    for part in name.split("."):
        found = getattr(found, part)
    assert arguments(heading.removeprefix(name)) == arguments_of(found)


def arguments(text):
    """Return the parameters of a heading with their defaults."""
    inner = text.removeprefix("(").removesuffix(")")
    return [part.strip() for part in re.split(r",\s*(?![^(]*\))", inner) if part.strip()]


def arguments_of(function):
    """Return the parameters of a function in the form of a heading."""
    written, starred = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            written.append("*")
            starred = True
        default = repr(parameter.default)
        if parameter.default is parameter.empty:
            written.append(parameter.name)
        elif parameter.default is os.environ:
            written.append(f"{parameter.name}=os.environ")
        else:
            default = WRITTEN.get(default, default)
            written.append(f"{parameter.name}={default}")
    return written


def test_the_examples_run(tmp_path):
    follow(PAGE, tmp_path)
