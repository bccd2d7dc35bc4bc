"""What the handler paths of the golden files lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abe_router import Message

if TYPE_CHECKING:
    from golden_types import Receipt

LIMIT = 3


async def charge(payload):
    """Take a payload."""


def record(payload):
    """Take a payload, off the event loop."""


def compare(before, after, tolerance):
    """Take more than a handler is given."""


async def _audit(payload):
    """Take a payload, but not from a routes file."""


async def settle(order: dict):
    """Take one payload."""


async def note(payload, message):
    """Take one payload and its message."""


@dataclass
class Bill:
    """What an order is billed by."""

    id: int
    total: str


async def bill(order: Bill):
    """Take an order as an instance of a class."""


async def collect(orders: list[Bill]):
    """Take several orders."""


async def file(receipt: Receipt):
    """Take a payload of a type that is not imported."""


async def store(order, database):
    """Take a payload and a database."""


class Shop:
    """A class whose method is no handler."""

    def charge(self, order):
        """Take a payload."""


async def swapped(message: Message, order):
    """Take a message and its payload, in the wrong order."""
