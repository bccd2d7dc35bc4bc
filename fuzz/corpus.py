"""Real input that the targets mutate: files of the example and of the tests, and blocks of the docs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """Routes files as bytes, schemas and payloads as JSON values, each in a fixed order."""

    routes: tuple[bytes, ...]
    schemas: tuple[Any, ...]
    payloads: tuple[Any, ...]

    @classmethod
    def read(cls, root: Path = ROOT) -> Corpus:
        """Read it from the repository."""
        pages = [path.read_text() for path in sorted([root / "README.md", *root.glob("docs/*.md")])]
        blocks = [match.groups() for page in pages for match in _FENCE.finditer(page)]
        files = [root / "routes.yaml", *sorted(root.glob("tests/diagnostics/*.yaml"))]
        routes = [path.read_bytes() for path in files]
        routes += [text.encode() for language, text in blocks if language == "yaml" and "routes:" in text]
        schemas = [json.loads(path.read_bytes()) for path in sorted(root.glob("schemas/**/*.json"))]
        payloads = [json.loads(line) for line in (root / "examples/orders.ndjson").read_text().splitlines()]
        for language, text in blocks:
            if language != "json":
                continue
            try:
                value = json.loads(text)
            except ValueError:  # a block may show a part of a document
                continue
            is_schema = isinstance(value, dict) and bool(value.keys() & {"type", "properties", "$schema"})
            (schemas if is_schema else payloads).append(value)
        return cls(tuple(routes), tuple(schemas), tuple(payloads))
