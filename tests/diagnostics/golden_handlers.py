"""What the handler paths of the golden files lead to."""

from dataclasses import dataclass

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
