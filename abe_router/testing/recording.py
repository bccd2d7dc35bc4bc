"""A backend for tests of code that publishes: the memory backend, and a list of what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import Message
from abe_router.messages.pattern import matches


class RecordingBackend(MemoryBackend):
    """A memory backend that remembers what was published; nothing about it is faked."""

    def __init__(self) -> None:
        super().__init__()
        #: Every message appended so far, in order, those that handlers emitted too.
        self.published: list[Message] = []

    def _append(self, messages: Sequence[Message]) -> None:
        super()._append(messages)
        self.published.extend(messages)

    def payloads(self, pattern: str = "#") -> list[Any]:
        """Return the payloads that were published to keys that match, in order."""
        return [message.payload for message in self.published if matches(pattern, message.key)]
