"""mkdocs.yml: every page is in the navigation, and lists render on the site as on GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
ITEM = re.compile(r"(?P<indent> *)(?:[-*]|\d+\.) ")


def listed(entry: Any) -> Iterator[str]:
    """Yield the pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry.values() if isinstance(entry, dict) else entry:
            yield from listed(child)


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [str(page.relative_to(page.parent if page.parent == ROOT else ROOT / "docs")) for page in PAGES]
    assert sorted(listed(SITE["nav"])) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lists_render_alike_on_github_and_on_the_site(page: Path) -> None:
    """The site needs a blank line before a list, and two spaces for each level of one."""
    opened, fenced = "", False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (item := ITEM.match(line)):
            assert len(item["indent"]) % 2 == 0, f"{page.name}:{number}: indent by two spaces"
            assert not opened or ITEM.match(opened), f"{page.name}:{number}: leave a blank line before it"
        opened = (opened or line) if line.strip() else ""


def test_the_site_loads_nothing_from_another_host() -> None:
    assert SITE["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & SITE.keys()
    assert SITE["plugins"] == ["search"]
