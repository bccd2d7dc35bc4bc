"""Hooks of the documentation site: the pages of the root folder, and links that work there and on GitHub.

The Markdown files are written for GitHub. On the site the root pages stand beside those of docs/, and a
link to a file that is no page leads to GitHub.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from markdown import Extension, Markdown
from markdown.blockprocessors import build_block_parser
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = "docs"
#: The pages outside docs/, by their names on the site; README.md becomes the start page.
ROOT_PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

_FENCED = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def github_slug(text: str, separator: str) -> str:
    """Return the anchor that GitHub gives a heading, without punctuation."""
    kept = re.sub(r"[^\w\- ]", "", text.strip().lower())
    return kept.replace(" ", separator)


class TwoSpaces(Extension):
    """Nests a list that is indented by two spaces, as GitHub does; Python-Markdown wants four."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  Python-Markdown's name
        """Build the parser of blocks anew, for it reads the width of a level once."""
        md.tab_length = 2
        md.parser = build_block_parser(md)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read headings and lists as GitHub does."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = github_slug
    config.markdown_extensions.insert(0, TwoSpaces())  # type: ignore[arg-type]  # Markdown takes instances
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root folder."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page, outside its fenced blocks."""
    path = page.file.src_uri
    folder = "" if path in ROOT_PAGES else posixpath.join(DOCS, posixpath.dirname(path))

    def rewritten(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link["path"]))
        return f"]({_address(target, path, config)}{link['anchor'] or ''})"

    parts, end = [], 0
    for fenced in _FENCED.finditer(markdown):
        parts += [_LINK.sub(rewritten, markdown[end : fenced.start()]), fenced[0]]
        end = fenced.end()
    return "".join([*parts, _LINK.sub(rewritten, markdown[end:])])


def _address(target: str, page: str, config: MkDocsConfig) -> str:
    """Return where a file of the repository is found from a page of the site."""
    if target in ROOT_PAGES or target.startswith(f"{DOCS}/"):
        return posixpath.relpath(target.removeprefix(f"{DOCS}/"), posixpath.dirname(page) or ".")
    if not (ROOT / target).exists():
        return target  # not found: the strict build reports it
    kind = "tree" if (ROOT / target).is_dir() else "blob"
    return f"{config.repo_url}/{kind}/main/{target}"
