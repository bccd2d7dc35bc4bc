"""JSON Schemas: found in one folder, compiled once, and explained when a payload breaks them."""

from abe_router.schema.folder import SchemaFolder
from abe_router.schema.schema import Schema
from abe_router.schema.text_mask import TextMask

__all__ = ["Schema", "SchemaFolder", "TextMask"]
