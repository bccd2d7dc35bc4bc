"""What a page loads: one style sheet and one module, from this server, and both of them are small."""

from __future__ import annotations

import re
from importlib.resources import files

from abe_router.http.dashboard import page

STATIC = files("abe_router.http.dashboard").joinpath("static")
TEMPLATES = files("abe_router.http.dashboard").joinpath("templates")


def test_style_sheet_and_module_are_small() -> None:
    assert len(STATIC.joinpath("dashboard.css").read_bytes()) <= 20 * 1024
    assert len(STATIC.joinpath("dashboard.js").read_text().splitlines()) <= 400
    assert {each.name for each in STATIC.iterdir()} == {"dashboard.css", "dashboard.js", "icon.svg"}


def test_templates_load_nothing_inline_and_nothing_from_another_host() -> None:
    for each in TEMPLATES.iterdir():
        text = each.read_text()
        assert not re.search(
            r"<script(?![^>]* src=)|<style|<[^>]*\sstyle=|<[^>]*\son[a-z]+=|https?://", text
        ), each.name
        assert "| safe" not in text, each.name


def test_navigation_has_one_key_for_each_page() -> None:
    keys = [entry.key for entry in page.NAVIGATION]
    assert len(set(keys)) == len(keys)


def test_style_sheet_has_no_class_that_no_page_uses() -> None:
    css = re.sub(r"/\*.*?\*/", "", STATIC.joinpath("dashboard.css").read_text(), flags=re.DOTALL)
    folder = files("abe_router.http.dashboard")
    sources = [*TEMPLATES.iterdir(), *(each for each in folder.iterdir() if each.name.endswith(".py"))]
    sources += [STATIC.joinpath("dashboard.js"), files("abe_router.operations").joinpath("graph_svg.py")]
    used = "\n".join(each.read_text() for each in sources)
    classes = set(re.findall(r"\.([a-zA-Z][\w-]*)", css))
    assert {each for each in classes if not re.search(rf"\b{re.escape(each)}\b", used)} == set()
