"""The graph of a table: what is connected, and that each format quotes what the file can name."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from abe_router.operations.access import load_table
from abe_router.operations.graph import dot, graph_of, mermaid
from abe_router.operations.graph_svg import svg

FILE = """
backend: memory://
unrouted: allow
routes:
  orders.created:
    owner: 'the "shop" #1 <b>&'
    description: "Ends a title: </title><script>"
    consumers:
      billing: {handler: shop:charge, emit: orders.paid}
      audit: {handler: shop:record, owner: 'a \\ b'}
  orders.paid:
    consumers: {mail: {handler: shop:mail, emit: mails.queued}}
  orders.#:
    consumers: {trail: shop:follow}
  payments.settled:
  a.very.long.key.that.does.not.fit.into.a.box.of.the.image:
"""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "routes.yaml").write_text(FILE)
    return graph_of(load_table(tmp_path / "routes.yaml"))


def names(graph):
    """Return the edges by the names of their nodes, and whether each is dashed."""
    return {(graph.by_id[e.source].name, graph.by_id[e.target].name): e.is_pattern for e in graph.edges}


def test_key_leads_to_each_group_that_gets_its_messages(graph):
    assert names(graph) == {
        ("orders.created", "orders.created/billing"): False,
        ("orders.created", "orders.created/audit"): False,
        ("orders.created", "orders.#/trail"): True,
        ("orders.paid", "orders.paid/mail"): False,
        ("orders.paid", "orders.#/trail"): True,
        ("orders.#", "orders.#/trail"): True,
        ("orders.created/billing", "orders.paid"): False,
        ("orders.paid/mail", "mails.queued"): False,
    }
    assert [node.name for node in graph.nodes if node.is_pattern] == ["orders.#"]
    assert [node.name for node in graph.nodes if not node.is_used] == ["mails.queued"]


#: Each line of a flowchart of Mermaid that the graph may have. A label has no quote and no bare `#`.
MERMAID = re.compile(
    r"""flowchart\ LR
    | \ \ (k\d+\["(?P<key>(?:[^"\#]|\#\d+;)+)"\](:::pattern)? | g\d+\("(?P<group>(?:[^"\#]|\#\d+;)+)"\))
    | \ \ (?P<source>[kg]\d+)\ (-->|-\.->)\ (?P<target>[kg]\d+)
    | \ \ classDef\ pattern\ stroke-dasharray:\ 5\ 4""",
    re.VERBOSE,
)


def unescaped(label):
    return re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label)


def test_mermaid_quotes_every_label(graph):
    parsed = [MERMAID.fullmatch(line) for line in mermaid(graph).splitlines()]
    assert None not in parsed
    labels = [unescaped(line["key"]) for line in parsed if line["key"]]
    assert labels[0] == 'orders.created<br/>the "shop" #1 <b>&'
    assert labels[1:3] == ["orders.paid", "orders.#"]
    assert sum(line["source"] is not None for line in parsed) == len(graph.edges)
    assert "#60;b#62;" in mermaid(graph)


#: The parts of DOT that the graph may have.
STRING = r'"(?:[^"\\]|\\.)*"'
DOT = re.compile(
    rf"""digraph\ routes\ \{{ | \}} | \ \ rankdir=LR;
    | \ \ (?P<id>\w+)\ \[\w+=({STRING}|\w+)(,\ \w+=({STRING}|\w+))*\];
    | \ \ (?P<source>\w+)\ ->\ (?P<target>\w+)(\ \[style=dashed\])?;""",
    re.VERBOSE,
)


def test_dot_quotes_every_string(graph):
    parsed = [DOT.fullmatch(line) for line in dot(graph).splitlines()]
    assert None not in parsed
    declared = {line["id"] for line in parsed if line["id"]}
    used = {end for line in parsed if line["source"] for end in (line["source"], line["target"])}
    assert used <= declared == {"node", *graph.by_id}
    assert r'label="orders.created\nthe \"shop\" #1 <b>&"' in dot(graph)
    assert r'label="audit\na \\ b"' in dot(graph)
    assert 'label="orders.#"' in dot(graph)


def boxes(image):
    """Return the boxes of an image by the first line of their titles, as (left, top, right, bottom)."""
    found = {}
    for group in image.iter(f"{SVG}g"):
        place = [float(group.find(f"{SVG}rect").get(name)) for name in ("x", "y", "width", "height")]
        left, top, width, height = place
        name = group.find(f"{SVG}title").text.splitlines()[0]
        found.setdefault(name, []).append((left, top, left + width, top + height))
    return found


def test_svg_has_three_columns_without_overlaps(graph):
    image = ET.fromstring(svg(graph))
    found = boxes(image)
    assert found.keys() == {node.name for node in graph.nodes}
    every = [box for each in found.values() for box in each]
    columns = sorted({box[0] for box in every})
    assert len(columns) == 3
    assert [len(found[name]) for name in ("orders.paid", "mails.queued")] == [2, 1]
    assert found["mails.queued"][0][0] == columns[2]
    for left, top, right, bottom in every:
        assert 0 < left < right < float(image.get("width"))
        assert 0 < top < bottom < float(image.get("height"))
        assert sum(o[0] < right and left < o[2] and o[1] < bottom and top < o[3] for o in every) == 1
    assert [link.get("href") for link in image.iter(f"{SVG}a")] == ["#k2"]


def test_svg_text_fits_its_box_and_is_escaped(graph):
    text = svg(graph)
    image = ET.fromstring(text)
    assert "<script>" not in text
    titles = [title.text for title in image.iter(f"{SVG}title")]
    assert any("</title><script>" in title for title in titles)
    assert any("a.very.long.key.that.does.not.fit.into.a.box.of.the.image" in title for title in titles)
    for group in image.iter(f"{SVG}g"):
        width = float(group.find(f"{SVG}rect").get("width"))
        assert all(len(line.text) * 7.25 + 14 < width for line in group.iter(f"{SVG}text"))
    assert "prefers-color-scheme: dark" in text
    dashed = [path for path in image.iter(f"{SVG}path") if path.get("class") == "pattern"]
    assert len(dashed) == sum(edge.is_pattern for edge in graph.edges)


def test_graph_of_an_empty_file_is_drawn(tmp_path):
    (tmp_path / "routes.yaml").write_text("routes: {orders.created: }")
    graph = graph_of(load_table(tmp_path / "routes.yaml"))
    assert boxes(ET.fromstring(svg(graph))).keys() == {"orders.created"}
    assert mermaid(graph).splitlines()[1] == '  k1["orders.created"]'
