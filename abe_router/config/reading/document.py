"""Reads a YAML document from bytes to values with positions."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping

import yaml

from abe_router.config.reading.code import Code
from abe_router.config.reading.composer import Composer, Refused
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.config.reading.syntax import commented_patterns, syntax_fault
from abe_router.text import split_lines

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: Stands for bytes that are no text.
UNREADABLE = "\ufffd"


def read_document(
    data: bytes, env: Mapping[str, str], faults: Faults, *, partly: bool = False
) -> YamlNode | None:
    """Return the document in `data`, or None if it cannot be read. Add each fault to `faults`.

    An empty file returns a node whose value is None. With `partly`, return what precedes an error of syntax
    or a limit, and read bytes that are no text as far as they are.
    """
    text = _decode(data, faults)
    if text is None and partly:
        text = decode_partly(data)
    if text is None:
        return None
    faults.secrets.read_file(text)
    commented_patterns(text, faults)
    composer = Composer(text, env, faults)
    try:
        for event in _events(text):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        syntax_fault(error, text, faults)
        return composer.root if partly else None
    except Refused:
        return composer.root if partly else None
    return composer.root or YamlNode(None, Span())


def _events(text: str) -> Iterator[yaml.Event]:
    loader = _LOADER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _decode(data: bytes, faults: Faults) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            faults.add(Code.NOT_TEXT, "the file is UTF-16, not UTF-8", Span(), hint="save it as UTF-8")
            return None
        before = data[: error.start].decode("utf-8", "replace")
        faults.add(Code.NOT_TEXT, "the file is not UTF-8", _span_of_end(before), label="not UTF-8 from here")
        return None
    if odd := _UNPRINTABLE.search(text):
        message = f"the file has a control character, U+{ord(odd[0]):04X}"
        faults.add(Code.NOT_TEXT, message, _span_of_end(text[: odd.start()]))
        return None
    return text


def decode_partly(data: bytes) -> str:
    """Return the text that is in `data`, with `UNREADABLE` for what is no text."""
    is_utf16 = data.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    text = data.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
    return _UNPRINTABLE.sub(UNREADABLE, text)


def _span_of_end(text: str) -> Span:
    lines = split_lines(text + ".")
    return Span(len(lines), len(lines[-1]))
