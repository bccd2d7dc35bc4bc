"""The size and the sources of what a browser loads."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

DASHBOARD = files("abe_router.http.dashboard")
STATIC = {each.name: each.read_text() for each in DASHBOARD.joinpath("static").iterdir()}
TEMPLATES = {each.name: each.read_text() for each in DASHBOARD.joinpath("templates").iterdir()}


def test_script_and_style_sheet_stay_small():
    assert len(STATIC["dashboard.js"].splitlines()) <= 400
    assert len(STATIC["dashboard.css"].encode()) <= 20 * 1024


@pytest.mark.parametrize("name", sorted(STATIC | TEMPLATES))
def test_nothing_comes_from_another_host_or_stands_inline(name):
    text = (STATIC | TEMPLATES)[name].replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:src|href|url|import|from)[=( ]+[\"']?(?:https?:)?//", text) == []
    if name in TEMPLATES:
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
        assert re.findall(r"<script(?![^>]* src=)", text) == []


def test_styles_have_no_class_that_no_page_uses():
    css = re.sub(r"/\*.*?\*/", "", STATIC["dashboard.css"], flags=re.DOTALL)
    classes = set(re.findall(r"\.([a-zA-Z][\w-]*)", css))
    modules = [each.read_text() for each in DASHBOARD.iterdir() if each.name.endswith(".py")]
    drawn = files("abe_router.operations").joinpath("graph_svg.py").read_text()
    used = "\n".join([*TEMPLATES.values(), STATIC["dashboard.js"], *modules, drawn])
    assert {each for each in classes if not re.search(rf"\b{re.escape(each)}\b", used)} == set()
