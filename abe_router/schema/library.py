"""The documents of a folder, found by URI and read once. No file outside the folder is opened."""

from __future__ import annotations

import errno
import json
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from abe_router.errors import PayloadMalformed, SchemaFault
from abe_router.files.source import Source
from abe_router.messages.message import decode
from abe_router.messages.pointer import join
from abe_router.schema.dialect import SCHEMA_URIS
from abe_router.schema.index import join_uri, placed
from abe_router.text import did_you_mean, foreign_detail

#: Most files of a folder that are looked into, for a name or an `$id`; most bytes of them, for an `$id`; and
#: most entries of folders that are passed on the way.
MAX_FILES, MAX_SCANNED, MAX_ENTRIES = 10_000, 64 * 1024 * 1024, 100_000


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed schema document. `canonical` is its JSON, whatever the layout of the file.

    `pointer` is where the document begins in its file, if it is embedded in another by its own `$id`.
    """

    path: Path | None
    canonical: bytes = field(repr=False)
    value: Any = field(repr=False, compare=False)
    digest: str = field(default="", compare=False)
    pointer: str = field(default="", compare=False)

    @classmethod
    def of(cls, value: Any, path: Path | None = None, digest: str = "", pointer: str = "") -> Document:
        """Make a document of a JSON value; `digest` is that of the file."""
        return cls(path, msgspec.json.encode(value, order="sorted"), value, digest, pointer)


class Library:
    """Finds documents under `root` by URI: that of a file, or the `$id` of a schema in a file.

    A link is followed only if it leads to a file within the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  a link swapped later must be seen anew
        self.uri = self.root.as_uri().rstrip("/") + "/"
        self._known: dict[Path, Document] = {}
        self._read: dict[Path, Document | SchemaFault] = {}
        self._names: list[str] | None = None
        #: The last parts of the `$id`s in a file, by its path and digest.
        self._ids: dict[tuple[Path, str], frozenset[str]] = {}
        self._scanned: dict[Path, frozenset[str]] | None = None
        self._identified: dict[str, Document | SchemaFault] = {}

    @property
    def files(self) -> frozenset[Path]:
        """Every file that was looked for since the last refresh, found or not."""
        looked_into = self._read.keys() | (self._scanned or {}).keys()
        return frozenset(path for path in looked_into if path.is_relative_to(self.root))

    def refresh(self) -> None:
        """Read every file again from now on. The document of an unchanged file is kept."""
        self._known = {path: found for path, found in self._read.items() if isinstance(found, Document)}
        self._read, self._scanned, self._identified, self._names = {}, None, {}, None

    def is_current(self) -> bool:
        """Return whether the files that were read are unchanged. False if some were missing, or searched."""
        if self._scanned is not None:
            return False
        for path, document in self._read.items():
            source = self._source(path)
            if isinstance(document, SchemaFault) or isinstance(source, SchemaFault):
                return False
            if source.digest != document.digest:
                return False
        return True

    def uri_of(self, path: str) -> str:
        """Return the URI of a path relative to the folder."""
        return urljoin(self.uri, quote(path, errors="surrogateescape"))

    def name_of(self, uri: str) -> str:
        """Return the path of a file relative to the folder, or the URI of anything else."""
        return _unquote(uri.removeprefix(self.uri)) if uri.startswith(self.uri) else uri

    def names(self) -> list[str]:
        """Return the paths of the folder's JSON files, relative to it, sorted."""
        found: list[str] = []
        entries = 0
        for folder, folders, files in os.walk(self.root):
            # A mounted ConfigMap has hidden folders with older copies of its files.
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            here = Path(folder).relative_to(self.root)
            found += [(here / name).as_posix() for name in files if name.endswith(".json")]
            entries += len(folders) + len(files)
            if len(found) > MAX_FILES or entries > MAX_ENTRIES:
                break
        return sorted(found[:MAX_FILES])

    def _names_once(self) -> list[str]:
        """Return the names as of the first time that they were asked for since the last refresh."""
        if self._names is None:
            self._names = self.names()
        return self._names

    def find(self, uri: str) -> Document | SchemaFault:
        """Return the document of a URI without fragment, or why there is none."""
        parts = urlsplit(uri)
        if parts.scheme == "file" and not parts.netloc:
            # Dots written as `%2e` outlive the joining of URIs.
            path = Path(os.path.normpath(_unquote(parts.path)))
            return self._find(path)
        if uri not in self._identified:
            self._identified[uri] = self._by_id(uri)
        return self._identified[uri]

    def _find(self, path: Path) -> Document | SchemaFault:
        if path not in self._read:
            self._read[path] = self._open(path)
        return self._read[path]

    def _open(self, path: Path) -> Document | SchemaFault:
        source = self._source(path)
        if isinstance(source, SchemaFault):
            return source
        known = self._known.get(path)
        if known and known.digest == source.digest:
            return known
        return _parse(source, path, path.relative_to(self.root).as_posix())

    def _source(self, path: Path) -> Source | SchemaFault:
        """Read a file of the folder."""
        outside = SchemaFault(
            "outside",
            f"`{os.path.relpath(path, self.root)}` is outside the schemas folder",
            hint=f"a schema and everything it refers to must be in `{self.root.name}`",
        )
        if not path.is_relative_to(self.root):
            return outside
        shown = path.relative_to(self.root).as_posix()
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self.root.resolve()):
                return outside
            return Source.read(real)
        except FileNotFoundError:
            hint = did_you_mean(shown, self._names_once())
            return SchemaFault("missing", f"schema `{shown}` is not in `{self.root.name}`", hint=hint)
        except (OSError, ValueError) as error:
            why = (error.strerror or "").lower() if isinstance(error, OSError) else error
            return SchemaFault("unreadable", f"schema `{shown}` cannot be read: {why}")
        except RuntimeError:  # what Python up to 3.12 makes of links in a circle
            why = os.strerror(errno.ELOOP).lower()
            return SchemaFault("unreadable", f"schema `{shown}` cannot be read: {why}")

    def _by_id(self, wanted: str) -> Document | SchemaFault:
        """Return the schema with an `$id`, whether it is a file or embedded in one."""
        if self._scanned is None:
            self._scanned = self._scan()
        last = _last(wanted)
        found: list[Document] = []
        for path in [path for path, ids in self._scanned.items() if last in ids]:
            document = self._find(path)
            if isinstance(document, Document):
                found += _identified(document, path.as_uri(), wanted)
        if not found:
            return SchemaFault(
                "reference",
                f"no schema in `{self.root.name}` has the `$id` `{wanted}`",
                hint="schemas are not fetched: give a schema in the folder this `$id`, or refer"
                " to it by its path",
            )
        other = next((each for each in found if each.canonical != found[0].canonical), None)
        if other is None:
            return found[0]
        return conflict(other, "", other.value, found[0])

    def _scan(self) -> dict[Path, frozenset[str]]:
        """Return the last parts of the `$id`s in each file of the folder. No file is parsed for it."""
        scanned: dict[Path, frozenset[str]] = {}
        known, self._ids = self._ids, {}
        left = MAX_SCANNED
        for name in self.names():
            source = self._source(path := self.root / name)
            if isinstance(source, Source):
                left -= len(source.data)
                if left < 0:
                    break
                key = (path, source.digest)
                scanned[path] = self._ids[key] = known.get(key) or frozenset(map(_last, _ids_in(source.data)))
        return scanned


def conflict(document: Document, pointer: str, schema: Any, other: Document) -> SchemaFault:
    """Return the fault of a schema in a document whose `$id` is that of another schema too."""
    name = "$id" if "$id" in schema else "id"
    message = (
        f"`{schema[name]}` is also the `$id` of another schema, in `{other.path.name if other.path else '?'}`"
    )
    pointer = f"{document.pointer}{pointer}/{name}"
    return SchemaFault("reference", message, document.path, pointer, "give each schema its own `$id`")


#: A member that may be the `$id` of a schema; in draft 4 it is called `id`.
_ID = re.compile(rb'"\$?id"\s*:\s*("(?:[^"\\]|\\.)*")')


def _ids_in(data: bytes) -> Iterator[str]:
    for quoted in _ID.findall(data):
        with suppress(ValueError):
            yield json.loads(quoted)


def _last(uri: str) -> str:
    """Return the part of a URI behind the last slash."""
    return uri.removesuffix("#").rpartition("/")[2]


def _identified(document: Document, uri: str, wanted: str) -> Iterator[Document]:
    """Yield the schemas of a document that have an `$id`, as documents."""
    value = document.value
    loose = value.get("$id", value.get("id")) if isinstance(value, dict) else None  # whatever the draft
    if isinstance(loose, str) and join_uri(uri, loose).removesuffix("#") == wanted:
        yield document
        return
    for each in placed(value, uri):
        if each.path and each.own is not None and each.base == wanted:
            embedded = {"$schema": SCHEMA_URIS[each.draft], **each.schema}
            yield Document.of(embedded, document.path, document.digest, join(each.path))


def _unquote(quoted: str) -> str:
    """Return a part of a URI as the name of a file, which need not be UTF-8."""
    return unquote(quoted, errors="surrogateescape")


def _parse(source: Source, path: Path, shown: str) -> Document | SchemaFault:
    """Parse a schema file, within the limits of a payload and without its byte order mark."""

    def fault(message: str, before: str) -> SchemaFault:
        *above, last = before.split("\n")
        return SchemaFault("syntax", message, path, line=len(above) + 1, column=len(last) + 1)

    data = source.data.removeprefix(BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return fault(f"schema `{shown}` is not UTF-8", data[: error.start].decode())
    try:
        document = Document.of(decode(data), path, source.digest)
        if (found := find_repetition(text)) is not None:
            return fault(f"schema `{shown}` gives key `{found.name}` twice", text[: found.offset])
        return document
    except PayloadMalformed as error:
        message = str(error).replace("payload", f"schema `{shown}`", 1)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:  # the second parser gives the position, the first decides
        message = f"schema `{shown}` is not JSON {foreign_detail(error.msg)}"
        return fault(message, text[: error.pos])
    except (ValueError, RecursionError):
        pass
    return fault(message, "")


#: Strings, and the characters that open, close and name members.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}:]')


class Repetition(NamedTuple):
    """A name, and where it stands for the second time, in characters from the beginning."""

    name: str
    offset: int


def find_repetition(text: str) -> Repetition | None:
    """Return the first repetition in a text that is valid JSON, None when there is none."""
    names: list[set[str]] = []
    last: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "{":
                names.append(set())
            case "}":
                names.pop()
            case ":" if last is not None:
                name = json.loads(last[0])
                if name in names[-1]:
                    return Repetition(name, last.start())
                names[-1].add(name)
        last = token
    return None
