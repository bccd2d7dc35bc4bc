"""The file system that a path lies on, and whether a database may."""

from __future__ import annotations

import re
from pathlib import Path

#: What Linux has mounted.
MOUNTS = Path("/proc/mounts")
#: Types of file systems that several machines share, or whose locks and shared memory do not hold.
_NETWORK = re.compile(
    r"nfs4?|cifs|smb[23]?|smbfs|9p|afs|acfs|beegfs|ceph|coda|davfs2?|gfs2?|glusterfs|gpfs|lustre|ncpfs|ocfs2"
    r"|fuse\.(?:ceph\S*|davfs|gcsfuse|glusterfs|goofys|mfs|rclone|s3fs|smb\S*|sshfs|nfs\S*)"
)
_VOLATILE = ("tmpfs", "ramfs")


def type_at(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that `path` lies on, empty where that cannot be told."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    whole, found, longest = path.resolve(), "", -1
    for line in lines:
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), words[1]))
        # Of several on the same place the last one is on top.
        if whole.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = words[2], len(point.parts)
    return found


def is_network(kind: str) -> bool:
    """Say whether locks on such a file system cannot be trusted."""
    return _NETWORK.fullmatch(kind) is not None


def is_volatile(kind: str) -> bool:
    """Say whether such a file system is gone when the machine is."""
    return kind in _VOLATILE
