"""Whether another user may change a file, or put another one in its place.

A file is reached through folders and links. A user who may write to one of the folders, or who owns it, can
replace what is in it. So every folder on the way is looked at, and every link is followed.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

#: Most links on the way to one file, as in Linux.
MAX_LINKS = 40


class Permissions:
    """Finds out whether only trusted users may change files. What was found good is not looked at again.

    Trusted users are root, the user of this process, and the owner of the Python that runs it.
    """

    def __init__(self) -> None:
        self._trusted = {0, os.geteuid(), Path(sys.prefix).stat().st_uid} if hasattr(os, "geteuid") else None
        self._good: set[str] = set()

    def fault(self, path: Path) -> str:
        """Return why another user may change a file, empty if none may. A missing file is not looked at."""
        if self._trusted is None:
            return ""
        try:
            return self._fault(os.path.abspath(path), MAX_LINKS)  # noqa: PTH100  links are followed one by one
        except OSError:
            return ""

    def _fault(self, path: str, links: int) -> str:
        if path in self._good:
            return ""
        if links == 0:
            return f"`{path}` is behind too many links"
        folder, name = os.path.split(path)
        if name and (why := self._fault(folder, links)):
            return why
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(folder)  # `..` in a link leads out of the folder that it is really in
            target = os.path.normpath(os.path.join(real, os.readlink(path)))  # noqa: PTH115, PTH118
            if why := self._fault(target, links - 1):
                return why
        elif why := self._own_fault(path, status):
            return why
        self._good.add(path)
        return ""

    def _own_fault(self, path: str, status: os.stat_result) -> str:
        """Return why another user may change one file, or what is in one folder."""
        assert self._trusted is not None
        folder = stat.S_ISDIR(status.st_mode)
        if status.st_uid not in self._trusted:
            return f"`{path}` belongs to user {status.st_uid}"
        if not status.st_mode & stat.S_IWOTH or (folder and status.st_mode & stat.S_ISVTX):
            return ""  # in a sticky folder, such as /tmp, each user can remove only what is theirs
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return ""  # as volumes of Kubernetes are
        return f"{'folder ' if folder else ''}`{path}` is world-writable"
