"""Runs the steps and the command of the Dockerfile without a container engine, in namespaces of Linux.

A container gets a root of its own, to which folders of this machine are bound: the programs, and the Python
that takes the place of the base image. It is PID 1 and has the user of the image. The network is shared.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path

from .files import FOLDER, ROOT, Stage

#: The folder in the root with `python`, as the base image has it on its path.
BASE = "/base/bin"
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
#: Mounts everything, enters the root, and runs a command.
SCRIPT = """\
set -e
root=$1; access=$2; user=$3; shift 3
mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/tmp" "$root/old"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
for path in $BOUND; do
  mkdir -p "$root$path"
  mount --rbind "$path" "$root$path"
  test "$path" = /dev || mount -o remount,bind,ro "$root$path"
done
mount -o "remount,bind,$access" "$root"
cd "$root"
pivot_root . old
umount -l /old
cd "$FOLDER"
unset BOUND FOLDER OLDPWD
exec unshare --user --map-user="$user" --map-group="$user" "$@"
"""


class Sandbox:
    """A root folder, and processes that run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "base" / "bin").mkdir(parents=True)
        for name in ("python", "python3"):
            (root / f"base/bin/{name}").symlink_to(os.path.realpath(sys.executable))
        for name in ("bin", "lib", "lib64", "sbin"):
            if Path("/", name).is_symlink():
                (root / name).symlink_to(Path("/", name).readlink())
        self.wheels = root / "wheels"
        self.wheels.mkdir()
        bound = {"/usr", "/etc", "/dev", sys.base_prefix, sysconfig.get_path("purelib")}
        self._bound = " ".join(path for path in sorted(bound) if not path.startswith("/usr/"))

    def command(
        self, command: Sequence[str], *, user: int = 0, read_only: bool = False, folder: str = "/"
    ) -> list[str]:
        """Return the command line that runs a command in the root."""
        access = "ro" if read_only else "rw"
        environment = ["env", f"BOUND={self._bound}", f"FOLDER={folder}"]
        return [*environment, *UNSHARE, "sh", "-c", SCRIPT, "sh", str(self.root), access, str(user), *command]

    def run(self, command: Sequence[str], environment: Mapping[str, str], **options: object) -> str:
        """Run a command to its end, and return what it prints; fail if it does."""
        line = self.command(command, **options)  # type: ignore[arg-type]
        done = subprocess.run(line, env=variables(environment), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def build(self, stage: Stage) -> None:
        """Take the steps of a stage, but those that make users: the namespace has them without."""
        folder, environment = "/", stage.environment()
        # The packages that abe-router needs are not installed again.
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_NO_DEPS": "1"}
        for instruction, arguments, flags in stage.steps:
            if instruction == "WORKDIR":
                folder = arguments
                self.path(folder).mkdir(exist_ok=True)
            elif instruction == "COPY" and "from" not in flags:
                source, target = arguments.split()
                self._copy(
                    FOLDER / source, self.path(folder) / target.lstrip("/") if target[0] == "." else target
                )
            elif instruction == "RUN" and not arguments.startswith("useradd "):
                self.run(["sh", "-ec", arguments], environment, folder=folder)

    def path(self, path: str) -> Path:
        """Return where a path of the container is on this machine."""
        return self.root / path.lstrip("/")

    def _copy(self, source: Path, target: Path | str) -> None:
        place = self.path(target) if isinstance(target, str) else target
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container, with `$PATH` as the base image has it."""
    base = f"{BASE}:/usr/sbin:/usr/bin:/sbin:/bin"
    path = environment.get("PATH", "$PATH").replace("$PATH", base)
    # `env` and `unshare` are found on this path too, before the root changes.
    return {"HOME": "/tmp", **environment, "PATH": path}


def add_dependencies(site: Path) -> None:
    """Let an environment find the packages of the one that runs the tests."""
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def make_wheel(folder: Path) -> None:
    """Make the wheel of the package, as a release has it."""
    found = distribution("abe-router")
    info = f"abe_router-{found.version}.dist-info"
    texts = {
        f"{info}/METADATA": found.read_text("METADATA") or "",
        f"{info}/entry_points.txt": found.read_text("entry_points.txt") or "",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"abe_router-{found.version}-py3-none-any.whl", "w") as wheel:
        names = [f"{info}/RECORD"]
        for path in sorted((ROOT / "abe_router").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                names.append(str(path.relative_to(ROOT)))
                wheel.write(path, names[-1])
        for name, text in texts.items():
            names.append(name)
            wheel.writestr(name, text)
        wheel.writestr(names[0], "".join(f"{name},,\n" for name in names))
