"""The routes file: its language, and how it becomes a table of routes or every fault in it."""

from abe_router.config.building.loader import Loader, load
from abe_router.config.language.editor import json_schema

__all__ = ["Loader", "json_schema", "load"]
