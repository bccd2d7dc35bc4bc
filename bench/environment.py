"""Virtual environments of the peers, outside the project, each made once from a list of pinned packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

_PINS = Path(__file__).parent / "pins"


def python_of(name: str) -> str:
    """Return the interpreter of contender `name`: that of its environment if it has pins, otherwise this one.

    Environments are kept under `$XDG_CACHE_HOME/abe-router-bench`, by default in `~/.cache`; one is made
    when it is missing or its pins have changed. Raise SystemExit if the installation fails.
    """
    pins = _PINS / f"{name}.txt"
    if not pins.exists():
        return sys.executable
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "abe-router-bench" / name
    python = folder / "bin" / "python"
    stamp = folder / "pins.sha256"
    digest = hashlib.sha256(sys.version.encode() + pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return str(python)
    print(f"making the environment of {name} in {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins)]
    if subprocess.run(install, check=False).returncode:
        raise SystemExit(f"the packages of {name} could not be installed; see above")
    stamp.write_text(digest)
    return str(python)
