"""One attempt: check a delivery, call the handler, and decide how it ends.

The decision is a value; the consumer carries it out. Nothing here talks to a backend.
"""

from abe_router.attempt.attempts import Attempts
from abe_router.attempt.verdict import Verdict
from abe_router.attempt.worker import Worker

__all__ = ["Attempts", "Verdict", "Worker"]
