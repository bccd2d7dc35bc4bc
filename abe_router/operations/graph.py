"""The graph of a table: its keys, its groups, and the keys that handlers emit to; as Mermaid or as DOT.

`graph_svg` draws it. A dashed line stands for a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from abe_router.messages.pattern import is_wild
from abe_router.routing.table import Metadata, RouteTable
from abe_router.text import printable

#: What a label of Mermaid may have as it is. `#` begins an entity there.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 _.:/@=+~-]")


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A key, a pattern or a group. `id` is a word that is unique in the graph.

    `name` identifies it in the file: a group has the name of its route. `label` is what to show, and `detail`
    the handler of a group. `is_used` says whether the file has the key or a route gets its messages; a key
    that is not used is only emitted to.
    """

    id: str
    kind: Literal["key", "group"]
    name: str
    label: str
    detail: str = ""
    is_pattern: bool = False
    is_used: bool = True
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def text(self) -> str:
        """What is known about it, one fact a line."""
        facts = [self.name, self.detail, " ".join((self.metadata.description or "").split())]
        facts += [f"owner: {self.metadata.owner}"] if self.metadata.owner else []
        facts += [f"tags: {', '.join(self.metadata.tags)}"] if self.metadata.tags else []
        return "\n".join(printable(fact) for fact in facts if fact)


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """The way of a message: from a key to a group, or from a group to the key that it emits to."""

    source: str
    target: str
    is_pattern: bool = False


@dataclass(frozen=True)
class Graph:
    """The nodes, in the order of the file, and the edges between them."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

    def only(self, wanted: Callable[[str], bool]) -> Graph:
        """Return the part of the graph with the nodes whose names are wanted."""
        nodes = {node.id: node for node in self.nodes if wanted(node.name)}
        edges = (edge for edge in self.edges if edge.source in nodes and edge.target in nodes)
        return Graph(tuple(nodes.values()), tuple(edges))

    @cached_property
    def by_id(self) -> dict[str, GraphNode]:
        """The nodes by id."""
        return {node.id: node for node in self.nodes}


def graph_of(table: RouteTable) -> Graph:
    """Return the graph of a table.

    A key has an edge to each group that gets its messages. The edge is dashed if a pattern is the reason.
    """
    emitted = [route.emit.key for route in table.routes if route.emit is not None]
    keys = {key: f"k{number}" for number, key in enumerate(dict.fromkeys([*table.keys, *emitted]), 1)}
    groups = {route.name: f"g{number}" for number, route in enumerate(table.routes, 1)}
    nodes, edges = [], []
    for key, id in keys.items():
        own = [route for route in table.routes if route.key == key] if is_wild(key) else table.match(key)
        edges += [GraphEdge(id, groups[route.name], is_wild(route.key)) for route in own]
        used = key in table.keys or bool(own)
        nodes.append(GraphNode(id, "key", key, key, "", is_wild(key), used, table.metadata_of(key)))
    for route in table.routes:
        id, metadata = groups[route.name], table.metadata_of(route.name)
        nodes.append(GraphNode(id, "group", route.name, route.group, route.handler.path, metadata=metadata))
        if route.emit is not None:
            edges.append(GraphEdge(id, keys[route.emit.key]))
    return Graph(tuple(nodes), tuple(edges))


def mermaid(graph: Graph) -> str:
    """Return a graph in the language of Mermaid."""
    return "\n".join(_mermaid_lines(graph))


def _mermaid_lines(graph: Graph) -> Iterator[str]:
    yield "flowchart LR"
    for node in graph.nodes:
        lines = [node.label, node.metadata.owner or ""]
        label = "<br/>".join(_mermaid_text(printable(line)) for line in lines if line)
        shape = f'("{label}")' if node.kind == "group" else f'["{label}"]'
        yield f"  {node.id}{shape}{':::pattern' if node.is_pattern else ''}"
    for edge in graph.edges:
        yield f"  {edge.source} {'-.->' if edge.is_pattern else '-->'} {edge.target}"
    yield "  classDef pattern stroke-dasharray: 5 4"


def _mermaid_text(text: str) -> str:
    return _NOT_PLAIN.sub(lambda match: f"#{ord(match[0])};", text)


def dot(graph: Graph) -> str:
    """Return a graph in DOT, the language of Graphviz."""
    return "\n".join(_dot_lines(graph))


def _dot_lines(graph: Graph) -> Iterator[str]:
    yield "digraph routes {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, fontname="monospace"];'
    for node in graph.nodes:
        label = "\n".join(printable(line) for line in (node.label, node.metadata.owner or "") if line)
        styles = ["rounded"] if node.kind == "group" else []
        styles += ["dashed"] if node.is_pattern else []
        style = f", style={_quoted(','.join(styles))}" if styles else ""
        yield f"  {node.id} [label={_quoted(label)}, tooltip={_quoted(node.text)}{style}];"
    for edge in graph.edges:
        yield f"  {edge.source} -> {edge.target}{' [style=dashed]' if edge.is_pattern else ''};"
    yield "}"


def _quoted(text: str) -> str:
    """Return a string of DOT. A backslash before a letter would be an escape of a label."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
