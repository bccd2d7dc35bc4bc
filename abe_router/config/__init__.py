"""The routes file: its language, and how it becomes a table of routes or every fault in it."""

from abe_router.config.editor import json_schema
from abe_router.config.loader import Loader, load

__all__ = ["Loader", "json_schema", "load"]
