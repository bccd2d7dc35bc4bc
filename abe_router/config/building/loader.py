"""Loads a routes file as a route table, each time it changes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Literal

from msgspec import UNSET

from abe_router.backend import Features
from abe_router.config.building.backend_url import BackendChoice, choose_backend, features_of
from abe_router.config.building.schemas import Schemas
from abe_router.config.building.table_builder import TableBuilder
from abe_router.config.building.tests import Cases
from abe_router.config.language.errors import read_model
from abe_router.config.language.forms import plain
from abe_router.config.language.model import FileModel
from abe_router.config.reading.code import Code
from abe_router.config.reading.document import UNREADABLE, decode_partly, read_document
from abe_router.config.reading.faults import Faults, Span, TooManyFaults
from abe_router.config.reading.node import YamlNode
from abe_router.config.reading.variable import has_variables
from abe_router.config.rules.lint import Lint
from abe_router.diagnostic import Diagnostic
from abe_router.errors import ConfigError, HandlerError
from abe_router.files.permissions import Permissions
from abe_router.files.source import Source
from abe_router.messages.pattern import is_wild
from abe_router.observe.trace_context import TraceOptions
from abe_router.routing.handler import (
    Handler,
    forget_imports,
    import_handler,
    module_files,
    put_first_on_import_path,
    unimported_handler,
)
from abe_router.routing.table import RouteTable
from abe_router.schema import SchemaFolder
from abe_router.schema.folder import MAX_REPEATED
from abe_router.text import counted

_CONFINED = "`check --no-import` reads no file outside this folder; without `--no-import` it does"
#: Most bytes of schemas that are compiled again for a file of a stranger.
MAX_CONFINED = 3 * 512 * 1024
#: Most steps of comparing patterns with keys, some seconds of work.
MAX_COMPARISONS = 4_000_000


class Loader:
    """Loads one routes file. It keeps compiled schemas and handlers that did not change between loads.

    The file is code, because it names the functions that run. `allow_handlers` are patterns of permitted
    handlers, such as `shop.*`. Unless `trust_writable` is true, a world-writable file is refused, and so is a
    file or a handler's module that another user can replace. Without `import_handlers` no user code runs, and
    calling a handler raises HandlerError. `backend` is the argument of `choose_backend`. With
    `confined`, no file outside the folder of the routes file is read. Handlers are in `code_folder`, by
    default the folder of the routes file. A fault in the file's tests is an error if `tests` is `strict`, and
    a warning if it is `warn`. If it is `off`, they are not read.
    """

    def __init__(
        self,
        path: Path,
        *,
        allow_handlers: Sequence[str] = (),
        import_handlers: bool = True,
        backend: str | None = None,
        trust_writable: bool = False,
        confined: bool = False,
        code_folder: Path | None = None,
        tests: Literal["strict", "warn", "off"] = "strict",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._path, self._env = path, os.environ if env is None else env
        self._folder = Path(os.path.abspath(path)).parent  # noqa: PTH100  not where a link leads
        self._code_folder = code_folder or self._folder
        self._allowed, self._imports = tuple(allow_handlers), import_handlers
        self._backend, self._trusts, self._confined = backend, trust_writable, confined
        self._tests = tests
        self._permissions, self._own = Permissions(), set[str]()
        self._schemas: SchemaFolder | None = None
        self._handlers: dict[str, Handler] = {}
        self._features: dict[tuple[str, str], Features] = {}
        self._schemas_of: tuple[Path, bool] | None = None
        #: The digest of the routes file, and the revision of its table, if the last load had no fault.
        self._loaded = ("", "")

    @property
    def path(self) -> Path:
        """The routes file."""
        return self._path

    @property
    def files(self) -> frozenset[Path]:
        """The files that the last load looked for. A change of any of them may change the table."""
        return frozenset([self._path]) | (self._schemas.files if self._schemas else frozenset())

    def load(self) -> RouteTable:
        """Read the file and everything it names. Return the table, or raise ConfigError with every fault.

        After a fault, the next load imports the modules of the file again.
        """
        handlers, modules = dict(self._handlers), set(sys.modules)
        try:
            return self._load()
        except BaseException:
            if self._imports:
                self._handlers = handlers
                with suppress(FileNotFoundError):
                    forget_imports(modules, [self._code_folder, Path.cwd()])
            raise

    def is_current(self, revision: str) -> bool:
        """Return whether the last load made the table of this revision, and the files have not changed since.

        It reads the files, but parses none. False may also mean that it cannot tell.
        """
        digest, loaded = self._loaded
        if loaded != revision or not revision or self._schemas is None:
            return False
        try:
            return Source.read(self._path).digest == digest and self._schemas.is_current()
        except (OSError, ValueError):
            return False

    def _load(self) -> RouteTable:
        self._loaded = ("", "")
        faults = Faults(self._path)
        with suppress(TooManyFaults):
            if (table := self._table(faults)) is not None:
                return table
        raise ConfigError(faults.all())

    def _table(self, faults: Faults) -> RouteTable | None:
        """Return the table, or None after an error was added; raise TooManyFaults at too many errors."""
        source = self._read(faults)
        root = read_document(source.data, self._env, faults) if source else None
        if source and root:
            _tolerate_tests(root, faults, self._tests)
            if root.value is None:
                hint = "write `routes:` with a key and its consumers below it"
                faults.add(Code.NO_ROUTES, "the file is empty", Span(), hint=hint)
            elif (file := read_model(root, faults)) and not _too_many_patterns(file, root, faults):
                table = self._assemble(file, root, source, faults)
                if not faults.refused:
                    self._loaded = source.digest, table.revision
                    return table
        return None

    def salvage(self, data: bytes | None = None) -> RouteTable | None:
        """Return a table without routes, with the backend and prefix of a faulty file, or of `data` instead.

        Commands that use a running system use it while the file has faults. A file that is no text, or is too
        large, is read as far as it is text. Return None if the file does not tell them: they are malformed or
        unreadable, a variable in them is not set, or they may stand after an error of syntax.
        """
        if (written := self.written(data)) is None:
            return None
        url, prefix = written
        choice = choose_backend(self._backend, url or None, self._folder, self._env)
        return RouteTable(
            backend=choice.url, backend_chosen_by=choice.chosen_by, prefix=prefix, path=self._path
        )

    def written(self, data: bytes | None = None) -> tuple[str, str] | None:
        """Return the backend and the prefix that a faulty file names, or `data` instead; empty for none.

        Return None if the file does not tell them.
        """
        faults = Faults(self._path)
        if data is None:
            source = self._read(faults, partly=True)
            data = source.data if source else None
        if data is None:
            return None
        root: YamlNode | None = None
        with suppress(TooManyFaults):
            root = read_document(data, self._env, faults, partly=True)
        values = root.value if root is not None and isinstance(root.value, dict) else {}
        options = {"backend": "", "prefix": ""}
        for name in options:
            if name in values:
                options[name] = values[name]
            elif re.search(rf"""(?m)(^|[{{,])\s*["']?{name}["']?\s*:""", decode_partly(data)):
                return None
        url, prefix = options["backend"], options["prefix"]
        if not isinstance(url, str) or not isinstance(prefix, str):
            return None
        if has_variables(url + prefix) or UNREADABLE in url + prefix:
            return None
        return url, prefix

    def _read(self, faults: Faults, *, partly: bool = False) -> Source | None:
        start = Span()
        if self._confined and not _is_inside(self._path, self._folder):
            message = "the file is a link to a file outside its folder"
            faults.add(Code.UNREADABLE, message, start, hint=_CONFINED)
            return None
        try:
            source = Source.read(self._path, partly=partly)
        except FileNotFoundError:
            hint = _other_file(self._path) or "`abe-router init` creates one"
            faults.add(Code.UNREADABLE, "the file does not exist", start, hint=hint)
        except OSError as error:
            faults.add(Code.UNREADABLE, f"the file cannot be read: {(error.strerror or '').lower()}", start)
        except ValueError as error:
            code = Code.TOO_LARGE if "larger" in str(error) else Code.UNREADABLE
            faults.add(code, f"the file cannot be used: {error}", start)
        else:
            if self._trusts:
                return source
            if source.mode & 0o002:
                hint = (
                    f"run `chmod o-w {self._path}`: the file decides which code runs; or pass"
                    " `--trust-writable`"
                )
                faults.add(Code.WORLD_WRITABLE, "the file is world-writable", start, hint=hint)
                return None
            self._permissions, self._own = Permissions(), set()
            if self._imports and (why := self._permissions.fault(self._path)):
                hint = (
                    "change its owner or mode: the file decides which code runs; or pass `--trust-writable`"
                )
                faults.add(Code.WORLD_WRITABLE, f"another user can replace the file: {why}", start, hint=hint)
                return None
            return source
        return None

    def _assemble(self, file: FileModel, root: YamlNode, source: Source, faults: Faults) -> RouteTable:
        choice, features = self._find_backend(file, root, faults)
        if self._imports:
            put_first_on_import_path(self._import_folders())
        if self._confined and not _is_inside(self._folder / file.schemas, self._folder):
            message = "the folder of schemas is outside the folder of the routes file"
            span = root.span_at(["schemas"]) if "schemas" in root.parts else Span()
            faults.add(Code.SCHEMA_OUTSIDE, message, span, hint=_CONFINED)
            raise TooManyFaults
        builder = TableBuilder(file, root, Schemas(self._folder_of(file), root, faults), self._find, faults)
        bindings = builder.bindings()
        deduplications = builder.deduplications(bindings)
        routes = builder.routes(bindings, deduplications)
        for code, span, message, hint in Lint(file, routes, bindings, root).findings(features):
            faults.add(code, message, span, hint=hint)
        schemas = [c.schema for c in bindings] + [r.when for r in routes if r.when is not None]
        digest = hashlib.sha256(source.digest.encode())
        for schema in dict.fromkeys(schemas):
            digest.update(schema.digest.encode())
        cases = Cases(file, root, faults).all()
        return RouteTable(
            routes=routes,
            keys=tuple(file.routes),
            bindings=bindings,
            backend=choice.url,
            backend_chosen_by=choice.chosen_by,
            prefix=plain(file.prefix),
            unrouted=file.unrouted,
            formats=file.formats,
            retain={key: plain(entry.retain) for key, entry in file.routes.items() if entry and entry.retain},
            deduplications=deduplications,
            metadata=builder.metadata(),
            trace=TraceOptions(file.trace.ratio, frozenset(file.trace.baggage)),
            revision=digest.hexdigest(),
            path=self._path,
            sources=frozenset([self._path]).union(*(schema.sources for schema in schemas)),
            cases=cases,
            case_faults=_case_faults(root, faults),
            http=file.http.options(self._folder) if file.http else None,
            warnings=faults.all(),
        )

    def _import_folders(self) -> list[Path]:
        """Return the folder of the handlers and the current one, which may be gone or open to all users."""
        with suppress(FileNotFoundError):
            here = Path.cwd()
            if self._trusts or not here.stat().st_mode & stat.S_IWOTH:
                return [self._code_folder, here]
        return [self._code_folder]

    def _find_backend(
        self, file: FileModel, root: YamlNode, faults: Faults
    ) -> tuple[BackendChoice, Features | None]:
        in_file = None if file.backend is UNSET else file.backend
        choice, prefix = choose_backend(self._backend, in_file, self._folder, self._env), plain(file.prefix)
        node = None if choice.overrides_file or in_file is None else root.get(["backend"])
        features = self._features.get((choice.url, prefix)) or features_of(choice, prefix, node, faults)
        if features is not None:
            self._features[choice.url, prefix] = features
        return choice, features

    def _folder_of(self, file: FileModel) -> SchemaFolder:
        wanted = (self._folder / file.schemas, file.formats)
        if self._schemas is None or self._schemas_of != wanted:
            most = MAX_CONFINED if self._confined else MAX_REPEATED
            self._schemas = SchemaFolder(wanted[0], formats=file.formats, most=most)
            self._schemas_of = wanted
        self._schemas.refresh()
        return self._schemas

    def _find(self, path: str) -> Handler:
        if path not in self._handlers:
            if self._imports and not self._trusts:
                self._require_own(path)
            find = import_handler if self._imports else unimported_handler
            self._handlers[path] = find(path, self._allowed)
        return self._handlers[path]

    def _require_own(self, path: str) -> None:
        """Raise HandlerError when another user can replace a file that the import of a handler runs."""
        module = path.partition(":")[0]
        if module in self._own:
            return
        for file in module_files(module):
            if why := self._permissions.fault(file):
                raise HandlerError(
                    "writable",
                    f"another user can replace the code of handler `{path}`: {why}",
                    hint="give the file to the user that runs the router, or pass `--trust-writable`",
                )
        self._own.add(module)


def _tolerate_tests(root: YamlNode, faults: Faults, tests: Literal["strict", "warn", "off"]) -> None:
    """Make the faults of `tests` warnings, or take `tests` out of the file."""
    if tests == "strict" or "tests" not in root.parts:
        return
    start = root.names["tests"]
    faults.tolerate(start, min((span for span in root.names.values() if span > start), default=None))
    if tests == "off":
        faults.forget_tolerated()
        for part in (root.value, root.parts, root.names):
            del part["tests"]


def _case_faults(root: YamlNode, faults: Faults) -> dict[str, tuple[Diagnostic, ...]]:
    """Return the tolerated faults of each case by its name, those of no case under an empty name."""
    starts = sorted((span[:2], name) for name, span in root.at(["tests"]).names.items())
    found: dict[str, tuple[Diagnostic, ...]] = {}
    for fault in faults.tolerated if starts else ():
        at = bisect_right(starts, (fault.line, fault.column), key=itemgetter(0))
        name = starts[at - 1][1] if at else ""
        found[name] = (*found.get(name, ()), fault)
    return found


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, its links followed, is in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _too_many_patterns(file: FileModel, root: YamlNode, faults: Faults) -> bool:
    """Return whether comparing all patterns of a file with all its keys takes too long, and add the fault.

    A comparison takes as many steps as the pattern has words.
    """
    patterns = [key for key in file.routes if is_wild(key)]
    emits = sum(c.emit is not None for e in file.routes.values() if e for c in (e.consumers or {}).values())
    keys = len(file.routes) + emits + sum(len(case.publish) for case in file.tests.values())
    if sum(pattern.count(".") + 4 for pattern in patterns) * keys <= MAX_COMPARISONS:
        return False
    message = f"{counted(len(patterns), 'pattern')} and {counted(keys, 'key')}: too many to compare them all"
    hint = "write fewer patterns with wildcards, or split the file"
    faults.add(Code.TOO_LARGE, message, root.name_at(["routes", patterns[-1]]), hint=hint)
    return True


def _other_file(missing: Path) -> str:
    """Return a hint with the routes file that is there instead: one of a similar name, or one of a parent."""
    folder = Path(os.path.abspath(missing)).parent  # noqa: PTH100  not where a link leads
    other = {".yaml": ".yml", ".yml": ".yaml"}.get(missing.suffix, missing.suffix)
    beside = folder / f"{missing.stem}{other}"
    parents = (parent / name for parent in folder.parents for name in (missing.name, beside.name))
    found = next((path for path in (beside, *parents) if path.is_file()), None)
    return f"`{os.path.relpath(found)}` exists" if found else ""


def load(path: Path) -> RouteTable:
    """Load a routes file once, as `Loader` does by default."""
    return Loader(path).load()
