"""Print what CHANGELOG.md says of a release: `python .ci/release_notes.py v0.1.0`.

Exit with an error unless the tag is the version of pyproject.toml and its section has a date.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def release_notes(tag: str, version: str, changelog: str) -> str:
    """Return the section of a version without its heading; raise ValueError if the release is not ready."""
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but the version in pyproject.toml is {version}")
    sections = re.split(r"^## (.+)\n", changelog, flags=re.MULTILINE)
    for heading, text in zip(sections[1::2], sections[2::2], strict=True):
        number, _, date = heading.partition(", ")
        if number == version:
            if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
                raise ValueError(f"CHANGELOG.md: the section `{heading}` has no date")
            return text.strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no section for {version}")


def main() -> None:
    """Print the notes for the tag on the command line."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        print(release_notes(sys.argv[1], version, (ROOT / "CHANGELOG.md").read_text()), end="")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
