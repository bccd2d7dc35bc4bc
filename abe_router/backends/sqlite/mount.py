"""What a file lies on: the mounts of this machine, and what their file systems are worth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: The file systems that Linux has mounted.
MOUNTS = Path("/proc/mounts")
#: Types of file systems that several machines share, or whose locks and shared memory are not reliable.
_NETWORK = re.compile(
    r"nfs4?|cifs|smb[23]?|smbfs|9p|afs|acfs|beegfs|ceph|coda|davfs2?|gfs2?|glusterfs|gpfs|lustre|ncpfs|ocfs2"
    r"|fuse\.(?:ceph\S*|davfs|gcsfuse|glusterfs|goofys|mfs|rclone|s3fs|smb\S*|sshfs|nfs\S*)"
)
_VOLATILE = ("tmpfs", "ramfs")


def mounted(mounts: Path) -> Iterator[tuple[Path, str]]:
    """Yield each mount point with the type of its file system, nothing when they are unknown."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split(" ")
        if len(words) >= 3:
            yield Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), words[1])), words[2]


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that `path` lies on, empty when it is unknown."""
    whole, found, longest = path.resolve(), "", -1
    for point, kind in mounted(mounts):
        # Of several mounts on one path the last one is visible.
        if whole.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found


def is_network(file_system: str) -> bool:
    """Return whether locks on a file system of this type are unreliable."""
    return _NETWORK.fullmatch(file_system) is not None


def is_volatile(file_system: str) -> bool:
    """Return whether a file system of this type is lost when the machine restarts."""
    return file_system in _VOLATILE
