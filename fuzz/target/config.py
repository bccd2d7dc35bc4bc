"""Routes files: every input gives a table or documented faults, and an edit equals a new start."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from random import Random

import yaml

from abe_router.backends import provider
from abe_router.config.building.loader import Loader
from abe_router.diagnostic import Diagnostic, render_all, render_github
from abe_router.errors import ConfigError
from abe_router.routing.table import RouteTable
from fuzz.corpus import ROOT, Corpus
from fuzz.mutate import mutate_bytes, mutate_value
from fuzz.target.target import Input, Target, demand

#: The environment of the files. The value of the secret must not appear in any fault.
_SECRET = "hunter2-4711"  # noqa: S105
_ENVIRONMENT = {"HOME": "/home/shop", "SECRET": _SECRET, "COUNT": "3"}


class ConfigTarget(Target):
    """Loads mutated routes files without importing handlers, one after another with the same loader."""

    name = "config"
    short = 300
    about = "a routes file gives a table or faults with positions; a second load equals a new loader's"

    def open(self, folder: Path) -> None:
        """Put the schemas of the example into the folder."""
        super().open(folder)
        shutil.copytree(ROOT / "schemas", folder / "schemas")
        self._path = folder / "routes.yaml"
        # Finding the installed providers takes ten times as long as a load. They do not change here.
        setattr(provider, "providers", cache(provider.providers))  # noqa: B010

    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return a routes file, and what an edit makes of it."""
        first = random.choice(corpus.routes)
        if random.random() < 0.7:
            first = _mutated(random, first, corpus)
        return [first, _mutated(random, first, corpus)]

    def check(self, given: Input) -> None:
        """Load the files in turn; compare the last result with that of a loader that saw no other file."""
        loader = self._loader()
        result: RouteTable | tuple[Diagnostic, ...] = ()
        for content in given:
            result = self._load(loader, content)
        fresh = self._load(self._loader(), given[-1]) if given else ()
        if isinstance(result, RouteTable) and isinstance(fresh, RouteTable):
            demand(result == fresh, "a reload gives another table than a new start")
            demand(not any((d := result.diff(fresh)).added + d.removed + d.changed), "equal tables differ")
        else:
            demand(result == fresh, f"a reload gives {result}, a new start {fresh}")

    def _loader(self) -> Loader:
        return Loader(self._path, import_handlers=False, env=_ENVIRONMENT)

    def _load(self, loader: Loader, content: bytes) -> RouteTable | tuple[Diagnostic, ...]:
        self._path.write_bytes(content)
        try:
            table = loader.load()
        except ConfigError as error:
            _check_faults(error.diagnostics, content)
            return error.diagnostics
        _check_faults(table.warnings, content)
        for route in table.routes:
            demand(table.by_name[route.name] is route, "two routes have one name")
        for key in table.concrete_keys:
            table.contract(key)
            table.match(key)
        return table


def _mutated(random: Random, content: bytes, corpus: Corpus) -> bytes:
    """Return a file with changed characters, or with other values in places of the language."""
    if random.random() < 0.5:
        try:
            changed = json.dumps(mutate_value(random, yaml.safe_load(content))).encode()
        except (TypeError, ValueError, yaml.YAMLError):  # damaged before, or it has a date
            changed = b""
        if 0 < len(changed) < 2 * len(content):  # aliases are written in full
            return changed
    return mutate_bytes(random, content, corpus.routes)


def _check_faults(faults: tuple[Diagnostic, ...], content: bytes) -> None:
    lines = len(content.splitlines()) + 1
    shown = render_all(faults, color=False) + render_all(faults, color=True)
    shown += "\n".join(map(render_github, faults)) + str([fault.to_json() for fault in faults])
    for fault in faults:
        demand(fault.line >= 1 and fault.column >= 1 and fault.width >= 1, f"no position: {fault}")
        demand(fault.path.suffix != ".yaml" or fault.line <= lines, f"behind the end of the file: {fault}")
        demand(bool(fault.message and fault.code), f"no message: {fault}")
    demand(_SECRET not in shown, f"a fault shows the value of a variable: {faults}")
    controls = {c for c in shown.replace("\033[", "") if not c.isprintable() and c != "\n"}
    demand(not controls, "unprintable characters in a rendered fault")
