"""The files of an edit: read as they are on disk, without credentials, and loaded again as a table.

Variables are not replaced in the files, so no secret of the environment enters them. Credentials that a
routes file spells out in a URL are replaced by `***`.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from abe_router.config.building.loader import Loader
from abe_router.files.source import Source
from abe_router.routing.table import RouteTable
from abe_router.text import is_secret_name, json_safe, mask_options

#: Makes the loader of a routes file; it takes `backend`, a URL.
MakeLoader = Callable[..., Loader]
#: Makes a loader that imports no handler.
unimported = partial(Loader, import_handlers=False, trust_writable=True, tests="off")

#: What stands for credentials.
MASK = b"***"
#: What stands for a routes file whose credentials were not found in its text.
WITHHELD = b"# This file is not kept: it has credentials in a form that cannot be replaced.\n"

#: The part of a URL before its host. The name of a user, and a variable, are no secrets.
_USER = re.compile(rb"""://([^\s"'/][^\s"']*)@""")
_NO_SECRET = re.compile(rb"([\w.-]*|\*\*\*|\$\{\w+\})(:(\*\*\*|\$\{\w+\})?)?")
_URL_OPTION = re.compile(rb"""([?&]([\w.-]{1,64})=)([^&\s"'#}]+)""")
_VARIABLE = re.compile(rb"\$\{(\w+)\}")
#: What stands behind a user or before an option in a URL, or begins an escape that YAML reads as that.
_finds_sign_of_secret = re.compile(rb"[@?&\\]").search


class EditFiles(msgspec.Struct, frozen=True):
    """The files of one edit, by path relative to a common folder; `routes` is that of the routes file."""

    routes: str
    contents: dict[str, bytes]

    @classmethod
    def read(cls, routes: Path, others: Collection[Path]) -> EditFiles:
        """Read a routes file, and those of the other files that exist; raise OSError or ValueError."""
        main = Path(absolute_path(routes))
        paths = {main, *(Path(absolute_path(path)) for path in others)}
        common = os.path.commonpath([path.parent for path in paths])
        contents = {}
        for path in sorted(paths):
            with suppress(*(() if path == main else (OSError, ValueError))):
                contents[os.path.relpath(path, common)] = Source.read(path.resolve()).data
        return cls(os.path.relpath(main, common), contents)

    def without_credentials(self) -> EditFiles:
        """Return the files with the credentials of the routes file replaced."""
        data = _redacted(self.contents[self.routes])
        files = EditFiles(self.routes, {**self.contents, self.routes: data})
        if files._names_credentials():
            return EditFiles(self.routes, {**self.contents, self.routes: WITHHELD})
        return files

    def load(self, backend: str, path: Path, make_loader: MakeLoader = unimported) -> RouteTable:
        """Return the table of the files, for a routes file that was at `path`; raise ConfigError.

        The files are written to a temporary folder that only the user can read.
        """
        with TemporaryDirectory(prefix="abe-router-") as folder:
            file = self.write(Path(folder))
            table = make_loader(file, backend=backend).load()
            # A path in the URL is relative to the folder of `path`, and not to the temporary one.
            return replace(table, backend=backend, path=path)

    def write(self, folder: Path) -> Path:
        """Write the files to a folder, and return the routes file; raise OSError or ValueError."""
        for name, data in self.contents.items():
            file = folder / name
            if not Path(os.path.normpath(file)).is_relative_to(folder):
                raise ValueError(f"`{name}` leads out of the folder")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return folder / self.routes

    def _names_credentials(self) -> bool:
        """Return whether the backend still has credentials when the file is parsed.

        YAML can write a text in more forms than `_redacted` knows, such as with escapes or over two lines.
        """
        data = self.contents[self.routes]
        if not _finds_sign_of_secret(data):  # to parse a large file takes a while
            return False
        env = {name.decode(): MASK.decode() for name in _VARIABLE.findall(data)}
        url, _ = Loader(Path(self.routes), import_handlers=False, env=env).written(data) or ("", "")
        user = url.partition("://")[2].rpartition("@")[0]
        names_user = not user.startswith("/") and not _NO_SECRET.fullmatch(user.encode(errors="replace"))
        return names_user or mask_options(url) != url


def encode_body(data: bytes) -> tuple[str, bytes]:
    """Return the name and the value of the entry of one file: its digest, and its compressed bytes."""
    return hashlib.sha256(data).hexdigest(), zlib.compress(data)


def decode_bodies(routes: str, names: Mapping[str, str], bodies: Mapping[str, bytes]) -> EditFiles:
    """Return the files whose entries are `bodies`, by digest; raise ValueError if one cannot be read."""
    try:
        return EditFiles(routes, {name: zlib.decompress(bodies[digest]) for name, digest in names.items()})
    except KeyError as error:
        raise ValueError(f"the file {error} is no longer kept") from None
    except zlib.error as error:
        raise ValueError(str(error)) from None


def absolute_path(path: Path) -> str:
    """Return an absolute path as text, without following links, fit for JSON."""
    return json_safe(os.path.abspath(path))  # noqa: PTH100


def _redacted(data: bytes) -> bytes:
    """Return a text with the credentials of its URLs replaced."""

    def without_user(match: re.Match[bytes]) -> bytes:
        return match[0] if _NO_SECRET.fullmatch(match[1]) else b"://%b@" % MASK

    def without_secret(match: re.Match[bytes]) -> bytes:
        is_secret = is_secret_name(match[2].decode()) and not match[3].startswith(b"${")
        return match[1] + MASK if is_secret else match[0]

    return _URL_OPTION.sub(without_secret, _USER.sub(without_user, data))
