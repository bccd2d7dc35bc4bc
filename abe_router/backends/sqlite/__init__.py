"""The embedded default: a message log in one SQLite file, shared by any number of processes of a machine."""

from abe_router.backends.sqlite.backend import SQLiteBackend

__all__ = ["SQLiteBackend"]
