"""The documents of a folder, found by URI and read once. No file outside the folder is opened."""

from __future__ import annotations

import errno
import json
import os
import re
from codecs import BOM_UTF8
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from abe_router.errors import PayloadMalformed, SchemaFault
from abe_router.files.source import Source
from abe_router.messages.message import decode
from abe_router.schema.index import join_uri
from abe_router.text import did_you_mean

#: Most files of a folder that are looked into, for a name or an `$id`; most bytes of them, for an `$id`; and
#: most entries of folders that are passed on the way.
MAX_FILES, MAX_IDENTIFIED, MAX_ENTRIES = 10_000, 8 * 1024 * 1024, 100_000


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed schema document. `canonical` is its JSON, whatever the layout of the file."""

    path: Path | None
    canonical: bytes = field(repr=False)
    value: Any = field(repr=False, compare=False)
    digest: str = field(default="", compare=False)

    @classmethod
    def of(cls, value: Any, path: Path | None = None, digest: str = "") -> Document:
        """Make a document of a JSON value; `digest` is that of the file."""
        return cls(path, msgspec.json.encode(value, order="sorted"), value, digest)


class Library:
    """Finds documents under `root` by URI: a file's own, or the `$id` it gives itself.

    A link is followed only if it leads to a file within the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100  a link swapped later must be seen anew
        self.uri = self.root.as_uri().rstrip("/") + "/"
        self._known: dict[Path, Document] = {}
        self._read: dict[Path, Document | SchemaFault] = {}
        self._identified: dict[str, Path] | None = None
        self._names: list[str] | None = None

    @property
    def files(self) -> frozenset[Path]:
        """Every file that was looked for since the last refresh, found or not."""
        return frozenset(path for path in self._read if path.is_relative_to(self.root))

    def refresh(self) -> None:
        """Read every file again from now on. The document of an unchanged file is kept."""
        self._known = {path: found for path, found in self._read.items() if isinstance(found, Document)}
        self._read, self._identified, self._names = {}, None, None

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
            folders.sort()
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
        elif (identified := self._by_id().get(uri)) is not None:
            path = identified
        else:
            return SchemaFault(
                "reference",
                f"no schema in `{self.root.name}` has the `$id` `{uri}`",
                hint="schemas are not fetched: give a schema in the folder this `$id`, or refer"
                " to it by its path",
            )
        if path not in self._read:
            self._read[path] = self._open(path)
        return self._read[path]

    def _open(self, path: Path) -> Document | SchemaFault:
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
            source = Source.read(real)
        except FileNotFoundError:
            hint = did_you_mean(shown, self._names_once())
            return SchemaFault("missing", f"schema `{shown}` is not in `{self.root.name}`", hint=hint)
        except (OSError, ValueError) as error:
            why = (error.strerror or "").lower() if isinstance(error, OSError) else error
            return SchemaFault("unreadable", f"schema `{shown}` cannot be read: {why}")
        except RuntimeError:  # what Python up to 3.12 makes of links in a circle
            why = os.strerror(errno.ELOOP).lower()
            return SchemaFault("unreadable", f"schema `{shown}` cannot be read: {why}")
        known = self._known.get(path)
        return known if known and known.digest == source.digest else _parse(source, path, shown)

    def _by_id(self) -> dict[str, Path]:
        """Return the files of the folder by the absolute `$id` they give themselves."""
        if self._identified is None:
            self._identified, size = {}, 0
            for name in self.names():
                uri = self.uri_of(name)
                document = self.find(uri)
                value = document.value if isinstance(document, Document) else None
                size += len(document.canonical) if isinstance(document, Document) else 0
                if size > MAX_IDENTIFIED:
                    break
                own = value.get("$id", value.get("id")) if isinstance(value, dict) else None
                if isinstance(own, str):
                    self._identified.setdefault(join_uri(uri, own).removesuffix("#"), self.root / name)
        return self._identified


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
        message = f"schema `{shown}` is not JSON: {error.msg[0].lower()}{error.msg[1:]}"
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
