"""RecordingBackend: a memory backend that records messages, for tests of code that publishes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abe_router.backends.memory import MemoryBackend
from abe_router.compat.consume import QueueBackend
from abe_router.messages.message import Message
from abe_router.messages.pattern import matches


class RecordingBackend(QueueBackend, MemoryBackend):
    """A real memory backend that records the published messages."""

    def __init__(self) -> None:
        super().__init__()
        #: All messages so far, in order, including the outputs of handlers.
        self.published: list[Message] = []

    def _append(self, messages: Sequence[Message]) -> None:
        super()._append(messages)
        self.published.extend(messages)

    def lend(self) -> RecordingBackend:
        """Return a view of this backend for another router. Its `close` closes nothing."""
        return _Lent(self)

    def payloads(self, pattern: str = "#") -> list[Any]:
        """Return the payloads of the recorded messages whose key matches, in order."""
        return [message.payload for message in self.published if matches(pattern, message.key)]


class _Lent(RecordingBackend):
    """Has the state of another backend."""

    def __init__(self, owner: RecordingBackend) -> None:
        self.__dict__ = owner.__dict__

    async def close(self) -> None:
        return
