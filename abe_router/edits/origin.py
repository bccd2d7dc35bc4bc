"""Where an edit came from: the owner of the file, the commit, and what the deployer said."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from abe_router.runtime.edit_record import EditOrigin
from abe_router.text import json_safe, recordable

#: The variable in which a deployer names the change that it rolls out.
CHANGE = "ABE_ROUTER_CHANGE"
#: Longest wait for git, in seconds, and longest text of an origin, in characters.
GIT_TIME, LONGEST = 5.0, 200
#: Git neither takes a lock nor runs a program that the configuration of a repository names.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false")


def origin_of(paths: Collection[Path], *, change: str = "") -> EditOrigin:
    """Return where the files came from, as far as it can be known. It takes some milliseconds."""
    newest: tuple[float, Path, int] | None = None
    for path in sorted(paths):
        with suppress(OSError):
            status = path.stat()
            if newest is None or status.st_mtime > newest[0]:
                newest = (status.st_mtime, path, status.st_uid)
    if newest is None:
        return EditOrigin(change=recordable(change, LONGEST))
    modified_at, path, uid = newest
    commit, author, subject, uncommitted = _commit_of(paths)
    return EditOrigin(
        file=json_safe(str(path)),
        owner=_name_of(uid),
        modified_at=modified_at,
        commit=commit,
        author=recordable(author, LONGEST),
        subject=recordable(subject, LONGEST),
        uncommitted=uncommitted,
        change=recordable(change, LONGEST),
    )


def change_of(env: Mapping[str, str] = os.environ) -> str:
    """Return the change that the deployer named when it started this process, or an empty string."""
    return env.get(CHANGE, "")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _commit_of(paths: Collection[Path]) -> tuple[str, str, str, bool]:
    """Return the last commit of the files, its author and subject, and whether the files differ from it.

    All are empty if the files are in no repository, in one that git does not trust, or not committed at all.
    """
    names = [os.path.abspath(path) for path in sorted(paths)]  # noqa: PTH100  not where a link leads
    folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    found = _git(folder, "log", "-1", "--no-color", "--format=%h%n%an%n%s", "--", *names).splitlines()
    if len(found) < 2:
        return "", "", "", False
    changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *names)
    return found[0], found[1], "".join(found[2:3]), bool(changed)


def _git(folder: str, *args: str) -> str:
    """Return what git prints, or nothing if it fails."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603  a fixed command; the names of files follow `--`
            [*_GIT, "-C", folder, *args],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            # A variable such as GIT_DIR would name another repository.
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            check=True,
            timeout=GIT_TIME,
        )
        return done.stdout.decode(errors="replace")
    return ""
