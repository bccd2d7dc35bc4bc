"""The environments of the peers, outside the project, each made once from pinned packages.

`pins/NAME.txt` lists the packages of a virtual environment. `pins/NAME.json` is the `package.json` of a
folder for Node.js. Environments are kept under `$XDG_CACHE_HOME/abe-router-bench`, by default in `~/.cache`.
One is made when it is missing or its pins have changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.contender import Contender

_PINS = Path(__file__).parent / "pins"


class NotInstalled(Exception):
    """A peer cannot run here; the text says what is missing."""


def installed(contenders: Iterable[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """Make the environments of the contenders.

    Return the contenders that can run, and for each title of the others what is missing.
    """
    ready, missing = [], {}
    for contender in contenders:
        try:
            if (_PINS / f"{contender.pins}.json").exists():
                node_modules_of(contender.pins)
            else:
                python_of(contender.pins)
        except NotInstalled as error:
            missing[contender.title] = str(error)
        else:
            ready.append(contender)
    return ready, missing


def python_of(name: str) -> str:
    """Return the interpreter of contender `name`: that of its environment if it has pins, otherwise this one.

    Raise NotInstalled if the packages cannot be installed.
    """
    pins = _PINS / f"{name}.txt"
    if not pins.exists():
        return sys.executable
    folder = _folder(name)
    python = folder / "bin" / "python"
    digest = hashlib.sha256(sys.version.encode() + pins.read_bytes()).hexdigest()
    if _is_made(folder, digest):
        return str(python)
    venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins)]
    _install(install, folder, digest)
    return str(python)


def node_modules_of(name: str) -> Path:
    """Return the folder of the Node.js packages of contender `name`.

    Raise NotInstalled without `node` and `npm`, or if the packages cannot be installed.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotInstalled(f"`{program}` is not installed")
    pins, folder = _PINS / f"{name}.json", _folder(name)
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not _is_made(folder, digest):
        folder.mkdir(parents=True)
        shutil.copy(pins, folder / "package.json")
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        _install(["npm", "install", *options], folder, digest)
    return folder / "node_modules"


def _folder(name: str) -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "abe-router-bench" / name


def _is_made(folder: Path, digest: str) -> bool:
    """Return whether the environment is made from these pins; remove it otherwise."""
    stamp = folder / "pins.sha256"
    if stamp.exists() and stamp.read_text() == digest:
        return True
    print(f"making the environment of {folder.name} in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _install(command: Sequence[str], folder: Path, digest: str) -> None:
    if subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False).returncode:
        raise NotInstalled("its packages could not be installed; see above")
    (folder / "pins.sha256").write_text(digest)
