"""Composes the events of the YAML parser into values with positions, within limits.

It takes one event after the other, without recursion, and builds nothing that the limits forbid. So neither
an alias bomb nor endless nesting (which crashes the C composer of PyYAML) costs more than the events read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.config.reading.scalar import Ambiguous, resolve
from abe_router.config.reading.variable import VariableError, has_variables, interpolate
from abe_router.files.source import MAX_BYTES
from abe_router.text import split_lines

#: Deepest nesting.
MAX_DEPTH = 64
#: Most values of a document, those behind aliases counted each time, and most aliases.
MAX_NODES, MAX_ALIASES = 100_000, 1000

#: The message of a file with deeper nesting.
TOO_DEEP = f"values are nested deeper than {MAX_DEPTH} levels"


class Refused(Exception):
    """Raised at a limit, after its fault was added. The rest is not read."""


@dataclass(slots=True)
class _Open:
    """A container that is being read. In a mapping, `name` is the key whose value comes next or came last."""

    node: YamlNode
    anchor: str | None
    name: str = ""
    wants_value: bool = False
    passes_over: bool = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.node.value, dict) and not self.wants_value


class Composer:
    """Makes nodes of events."""

    def __init__(self, text: str, env: Mapping[str, str], faults: Faults) -> None:
        self._lines = split_lines(text)
        self._env, self._faults = env, faults
        self._open: list[_Open] = []
        self._anchors: dict[str, YamlNode] = {}
        #: Values and aliases so far, and characters of values that have variables.
        self._nodes = self._aliases = self._grown = 0
        self.root: YamlNode | None = None

    def take(self, event: yaml.Event) -> None:
        """Take the next event; raise Refused when a limit is passed."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin(event, [])
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self._refuse(Code.NOT_OF_THE_LANGUAGE, "a routes file must be one document", self._span(event))

    def _refuse(self, code: Code, message: str, span: Span, hint: str = "") -> NoReturn:
        self._faults.add(code, message, span, hint=hint)
        raise Refused

    def _span(self, event: yaml.Event) -> Span:
        start, end = event.start_mark, event.end_mark
        assert start is not None
        assert end is not None
        if end.line == start.line:
            return Span(start.line + 1, start.column + 1, max(1, end.column - start.column))
        line = self._lines[start.line] if start.line < len(self._lines) else ""
        return Span(start.line + 1, start.column + 1, max(1, len(line.rstrip()) - start.column))

    def _begin(self, event: yaml.CollectionStartEvent, value: Any) -> None:
        span = self._span(event)
        if len(self._open) >= MAX_DEPTH:
            self._refuse(Code.TOO_LARGE, TOO_DEEP, span)
        self._check_tag(event, span)
        node = YamlNode(value, span, depth=1)
        self._place(node)
        self._open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        closed = self._open.pop()
        if closed.anchor is not None:
            self._anchors[closed.anchor] = closed.node
        if self._open:
            parent = self._open[-1].node
            parent.size += closed.node.size - 1  # itself was counted at its start
            parent.depth = max(parent.depth, closed.node.depth + 1)

    def _alias(self, event: yaml.AliasEvent) -> None:
        target = self._anchors.get(event.anchor or "")
        self._aliases += 1
        if target is None:
            hint = f'quote a pattern that begins with `*`: `"*{event.anchor}"`'
            message = f"alias `*{event.anchor}` has no anchor before it"
            self._refuse(Code.SYNTAX, message, self._span(event), hint)
        elif self._aliases > MAX_ALIASES:
            self._refuse(Code.TOO_LARGE, f"more than {MAX_ALIASES:,} aliases", self._span(event))
        elif len(self._open) + target.depth > MAX_DEPTH:
            self._refuse(Code.TOO_LARGE, TOO_DEEP, self._span(event))
        else:
            self._place(target)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        span = self._span(event)
        self._check_tag(event, span)
        node = YamlNode(event.value, span, event.value, plain=not event.style)
        if self._open and self._open[-1].wants_key:
            self._key(node)
            return
        self._resolve(node)
        self._place(node)
        if event.anchor is not None:
            self._anchors[event.anchor] = node

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, span: Span) -> None:
        if event.tag is not None:
            message, hint = (
                f"tag `{event.tag}` is not supported",
                "remove it, or quote the value",
            )
            self._faults.add(Code.NOT_OF_THE_LANGUAGE, message, span, hint=hint)

    def _key(self, node: YamlNode) -> None:
        """Take a scalar as the key of the mapping that is being read."""
        mapping, key = self._open[-1], node.text
        mapping.name, mapping.wants_value, mapping.passes_over = key, True, False
        if key == "<<" and node.plain:
            mapping.passes_over = True
            hint = "put options that consumers share under `defaults`"
            self._faults.add(Code.NOT_OF_THE_LANGUAGE, "merge keys are not supported", node.span, hint=hint)
            return
        if node.plain:
            self._check_plain_key(node)
        if (first := mapping.node.names.get(key)) is not None:
            mapping.passes_over = True
            inside = [container.name for container in self._open[:-1]]
            group = len(inside) == 3 and inside[0] == "routes" and inside[2] == "consumers"
            self._faults.add(
                Code.DUPLICATE_GROUP if group else Code.DUPLICATE_KEY,
                f"group `{key}` is given twice for `{inside[1]}`" if group else f"key `{key}` is given twice",
                node.span,
                label=f"first on line {first.line}",
                hint="give each handler its own group; each group gets its own copy" if group else "",
            )
        mapping.node.names.setdefault(key, node.span)

    def _check_plain_key(self, node: YamlNode) -> None:
        key = node.text
        try:
            kind = {bool: "a boolean", int: "a number", float: "a number", type(None): "null"}.get(
                type(resolve(key))
            )
        except Ambiguous as error:
            self._faults.add(Code.AMBIGUOUS, str(error), node.span, hint=f'quote it: `"{key}"`')
            return
        if kind is not None:
            self._faults.add(Code.AMBIGUOUS, f"key `{key}` is {kind}", node.span, hint=f'quote it: `"{key}"`')

    def _resolve(self, node: YamlNode) -> None:
        """Replace the variables in a scalar, and give a plain one its type."""
        try:
            if has_variables(node.text):
                used: dict[str, str] = {}
                node.value = interpolate(node.text, self._env, used)
                self._faults.secrets.add(used)
                self._grown += len(node.value)
                if self._grown > MAX_BYTES:
                    message = f"the values with variables are longer than {MAX_BYTES:,} characters in all"
                    self._refuse(Code.TOO_LARGE, message, node.span)
            if node.plain and (node.value or not node.text):
                node.value = resolve(node.value)
        except VariableError as error:
            # Quotes take a column; where escapes or lines shift the text, the whole scalar is shown.
            quotes = 0 if node.plain else 1
            exact = node.span.width == len(node.text) + 2 * quotes
            span = node.span.part(error.offset + quotes, error.width) if exact else node.span
            self._faults.add(Code.VARIABLE, str(error), span, hint=error.hint)
        except Ambiguous as error:
            # The value of a variable may be a secret, so it is not shown.
            own = node.value == node.text
            message = str(error) if own else f"YAML readers disagree about the value of `{node.text}`"
            hint = error.hint if own else f'quote it: `"{node.text}"`'
            self._faults.add(Code.AMBIGUOUS, message, node.span, hint=hint)

    def _place(self, node: YamlNode) -> None:
        """Put a value where it belongs: as the root, an item or a member."""
        self._nodes += node.size
        if self._nodes > MAX_NODES:
            self._refuse(Code.TOO_LARGE, f"more than {MAX_NODES:,} values", node.span)
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.node.size += node.size
        parent.node.depth = max(parent.node.depth, node.depth + 1)
        if parent.wants_key:
            self._refuse(
                Code.NOT_OF_THE_LANGUAGE, "a key must be text, not a list, mapping or alias", node.span
            )
        values, step = parent.node.value, parent.name
        if isinstance(values, list):
            parent.node.parts[len(values)] = node
            values.append(node.value)
            return
        parent.wants_value = False
        if not parent.passes_over:
            parent.node.parts[step] = node
            values[step] = node.value
