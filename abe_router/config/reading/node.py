"""A value of the file and its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from abe_router.config.reading.faults import Span


@dataclass(slots=True)
class YamlNode:
    """A value and its place.

    `text` is a scalar as the file has it, before variables were replaced: what messages may show. `span`
    of a container is where it begins. `names` are the places of a mapping's keys. `size` counts the values
    within and `depth` their levels, what is behind aliases included.
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
        """Return the node at a path, or None when there is none."""
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
        """Return the place to point at for a path: a scalar itself, the key of anything larger."""
        span, node = self.span, self
        for step in path:
            if step not in node.parts:
                break
            key, node = node.names.get(str(step)), node.parts[step]
            pointless = isinstance(node.value, dict | list) or not node.text
            span = key if key is not None and pointless else node.span
        return span

    def name_at(self, path: Sequence[str | int]) -> Span:
        """Return the place of the key at the end of a path."""
        return self.at(path[:-1]).names.get(str(path[-1])) or self.span_at(path)
