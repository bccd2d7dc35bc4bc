"""A value of the file and its position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from abe_router.config.reading.faults import Span


@dataclass(slots=True)
class YamlNode:
    """A value and its position.

    `text` is a scalar as the file has it, before variables were replaced. Messages show this text. The
    `span` of a container is its start. `names` are the spans of a mapping's keys. `size` counts the values
    inside and `depth` their levels, including those behind aliases.
    """

    value: Any
    span: Span
    text: str = ""
    plain: bool = False
    parts: dict[str | int, YamlNode] = field(default_factory=dict)
    names: dict[str, Span] = field(default_factory=dict)
    size: int = 1
    depth: int = 0

    def get(self, path: Sequence[str | int]) -> YamlNode | None:
        """Return the node at a path, or None if there is none."""
        node: YamlNode | None = self
        for step in path:
            node = node.parts.get(step) if node is not None else None
        return node

    def at(self, path: Sequence[str | int]) -> YamlNode:
        """Return the node at a path, or the last one on the way to it."""
        node = self
        for step in path:
            if step not in node.parts:
                break
            node = node.parts[step]
        return node

    def span_at(self, path: Sequence[str | int]) -> Span:
        """Return the span to show for a path: that of a scalar itself, else that of the key."""
        span, node = self.span, self
        for step in path:
            if step not in node.parts:
                break
            key, node = node.names.get(str(step)), node.parts[step]
            pointless = isinstance(node.value, dict | list) or not node.text
            span = key if key is not None and pointless else node.span
        return span

    def name_at(self, path: Sequence[str | int]) -> Span:
        """Return the span of the key at the end of a path."""
        return self.at(path[:-1]).names.get(str(path[-1])) or self.span_at(path)
