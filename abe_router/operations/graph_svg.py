"""The graph of a table as an SVG image: keys, groups and emitted keys in three columns.

The image needs no script and no font of another host. It follows the light or dark scheme of its reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from abe_router.operations.graph import Graph, GraphEdge, GraphNode
from abe_router.text import json_safe, shortened

#: Sizes in pixels: of a row and the box in it, of the margin, the gap between columns, the heading, a letter.
_ROW, _BOX, _MARGIN, _GAP, _HEAD, _LETTER = 52, 40, 24, 120, 36, 7.25
#: Longest text in a box, in letters, and longest of two in one line.
_LONGEST, _HALF = 40, 24
_NARROWEST = 120
_STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --panel: #ffffff; --line: #868f9c; --edge: #8d97a5;
  --text: #171b21; --muted: #586170; --accent: #2f55d4; --group: #ebf0ff }
@media (prefers-color-scheme: dark) { :root { --bg: #0e1116; --panel: #151920; --line: #69738a;
  --edge: #69738a; --text: #e6e9ee; --muted: #9aa4b2; --accent: #8aa8ff; --group: #1b2440 } }
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  fill: var(--text) }
.head { font: 600 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--muted) }
.note { font-size: 11px; fill: var(--muted) }
.page { fill: var(--bg) }
.box { fill: var(--panel); stroke: var(--line) }
.group .box { fill: var(--group); stroke: var(--accent) }
.pattern .box, path.pattern { stroke-dasharray: 5 4 }
path { fill: none; stroke: var(--edge); stroke-width: 1.25 }
.tip { fill: var(--edge); stroke: none }
""".strip()


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a node is drawn: its left edge, its middle and its width."""

    node: GraphNode
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a page adds to a graph: by the names of nodes, the second line of a box, a class and an address.

    Such a graph is a part of the page, and has its style from there.
    """

    notes: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def svg(graph: Graph, overlay: Overlay | None = None) -> str:
    """Return the image of a graph."""
    return "\n".join(_lines(graph, overlay))


def _lines(graph: Graph, overlay: Overlay | None) -> Iterator[str]:
    columns = _layout(graph)
    boxes = [box for column in columns for box in column.values()]
    bottom = max((box.y + _BOX / 2 for box in boxes), default=_HEAD + _MARGIN)
    lefts, right = _edges_of(columns)
    width, height = right + _MARGIN, bottom + _MARGIN + 24
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" role="{"img" if overlay is None else "group"}"'
        ' aria-label="Keys, groups and emitted keys">'
    )
    if overlay is None:
        yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{width:g}" height="{height:g}" rx="8"/>'
    for left, heading in zip(lefts, ("Keys", "Groups", "Emitted keys"), strict=False):
        yield f'<text class="head" x="{left:g}" y="{_MARGIN + 8}">{heading}</text>'
    keys, groups, emitted = columns
    for edge in graph.edges:
        from_group = edge.source in groups
        ends = (groups[edge.source], emitted[edge.target]) if from_group else None
        yield from _edge(edge, *(ends or (keys[edge.source], groups[edge.target])))
    for number, column in enumerate(columns):
        for box in column.values():
            # A key of the third column that is in the first one too leads there.
            yield from _box(box, again=number == 2 and box.node.id in keys, overlay=overlay)
    yield (
        f'<text class="note" x="{_MARGIN}" y="{height - _MARGIN / 2:g}">dashed: by a pattern'
        f"{' · ↩ also on the left' if keys.keys() & emitted.keys() else ''}</text>"
    )
    yield "</svg>"


def _layout(graph: Graph) -> tuple[dict[str, _Box], dict[str, _Box], dict[str, _Box]]:
    """Return the boxes of the three columns, by id.

    A key is beside its groups, and an emitted key beside the first group that emits to it.
    """
    emitted_ids = {edge.target for edge in graph.edges if edge.source.startswith("g")}
    keys = [node for node in graph.nodes if node.kind == "key" and node.is_used]
    groups = {node.id: node for node in graph.nodes if node.kind == "group"}
    own: dict[str, list[str]] = {node.id: [] for node in keys}
    by_name = {node.name: node.id for node in keys}
    for node in groups.values():
        own[by_name[node.name.partition("/")[0]]].append(node.id)
    first, rows = _MARGIN + _HEAD + _BOX / 2, 0
    key_rows: dict[str, float] = {}
    group_rows: dict[str, float] = {}
    for node in keys:
        for number, id in enumerate(own[node.id]):
            group_rows[id] = first + (rows + number) * _ROW
        count = max(1, len(own[node.id]))
        key_rows[node.id] = first + (rows + (count - 1) / 2) * _ROW
        rows += count
    output: dict[str, float] = {}
    for edge in sorted(
        (edge for edge in graph.edges if edge.target in emitted_ids), key=lambda e: group_rows[e.source]
    ):
        if edge.target not in output:
            output[edge.target] = max(group_rows[edge.source], max(output.values(), default=0) + _ROW)
    left: float = _MARGIN
    columns = []
    for places in (key_rows, group_rows, output):
        nodes = [graph.by_id[id] for id in places]
        width = _width(nodes)
        columns.append({n.id: _Box(n, left, y, width) for n, y in zip(nodes, places.values(), strict=True)})
        left += width + _GAP
    return columns[0], columns[1], columns[2]


def _width(nodes: Iterable[GraphNode]) -> float:
    """Return the width of a column, in which the longest text has room."""
    longest = max((len(text) for node in nodes for text in _texts(node)), default=0)
    return max(_NARROWEST, round(longest * _LETTER) + 28)


def _edges_of(columns: Iterable[Mapping[str, _Box]]) -> tuple[list[float], float]:
    """Return the left edges of the columns that have boxes, and the right edge of the last of them."""
    filled = [next(iter(column.values())) for column in columns if column]
    return [box.x for box in filled], max((box.x + box.width for box in filled), default=240)


def _texts(node: GraphNode) -> list[str]:
    """Return the lines in a box: the name, and below it the handler and the owner."""
    facts = [json_safe(text) for text in (node.detail, node.metadata.owner) if text]
    second = " · ".join(shortened(fact, _LONGEST if len(facts) == 1 else _HALF) for fact in facts)
    return [text for text in (shortened(node.label, _LONGEST), second) if text]


def _box(box: _Box, *, again: bool, overlay: Overlay | None) -> Iterator[str]:
    node, shown = box.node, overlay or Overlay()
    own = [shown.classes[node.name]] if node.name in shown.classes else []
    kinds = " ".join([node.kind, *(["pattern"] if node.is_pattern else []), *own])
    radius = _BOX / 2 if node.kind == "group" else 4
    anchor = "" if again else f' id="{node.id}"'
    lines = _texts(node)
    if node.name in shown.notes:
        lines[1:] = [shown.notes[node.name]]
    link = f"#{node.id}" if again else shown.links.get(node.name, "")
    if link:
        yield f'<a href="{_xml(link)}">'
    if again:
        lines[0] += " ↩\ufe0e"
    yield f'<g class="{kinds}"{anchor}><title>{_xml(node.text)}</title>'
    yield (
        f'<rect class="box" x="{box.x:g}" y="{box.y - _BOX / 2:g}" width="{box.width:g}" height="{_BOX}"'
        f' rx="{radius:g}"/>'
    )
    for number, line in enumerate(lines):
        y = box.y + 4 + (number * 15 - 7 if len(lines) > 1 else 0)
        style = ' class="note"' if number else ""
        yield f'<text{style} x="{box.x + 14:g}" y="{y:g}">{_xml(line)}</text>'
    yield "</g>"
    if link:
        yield "</a>"


def _edge(edge: GraphEdge, source: _Box, target: _Box) -> Iterator[str]:
    """Draw a curve with a tip at its end."""
    x, end = source.x + source.width, target.x - 6
    middle = (x + end) / 2
    style = ' class="pattern"' if edge.is_pattern else ""
    curve = f"M{x:g} {source.y:g}C{middle:g} {source.y:g} {middle:g} {target.y:g} {end:g} {target.y:g}"
    yield f'<path{style} d="{curve}"/>'
    yield f'<path class="tip" d="M{end - 1:g} {target.y - 4:g}l7 4l-7 4z"/>'


def _xml(text: str) -> str:
    """Return text for XML, which has no control characters besides the end of a line."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in json_safe(text)))
