"""A target: makes inputs of one kind, and checks a property for each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from random import Random
from typing import Any

from fuzz.corpus import Corpus

#: An input is bytes, or a value that JSON can carry, which may contain bytes. Both can be made smaller.
Input = Any


class Violated(AssertionError):
    """Raised by a check when its property does not hold for an input."""


def demand(holds: bool, message: str) -> None:
    """Raise Violated with `message` unless the property holds."""
    if not holds:
        raise Violated(message)


class Target(ABC):
    """One kind of input.

    A case is determined by its random source: `make` uses no other, and no state of earlier cases. `check`
    raises nothing if the property holds. An exception of any other kind than Violated is a finding too.
    """

    #: Its name on the command line, and one line about the property.
    name: str
    about: str
    #: How many cases a short run has: about a second of work.
    short = 100
    #: How many cases a long run has at least, however long they take.
    least = 0
    #: The longest processor time of one case, in seconds.
    seconds = 2.0

    def missing(self) -> str:
        """Return why it cannot run on this machine; empty if it can."""
        return ""

    def open(self, folder: Path) -> None:
        """Prepare the cases; they may write files in `folder`."""
        self.folder = folder

    def close(self) -> None:  # noqa: B027  most targets hold nothing
        """Release what `open` acquired."""

    @abstractmethod
    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return an input."""

    @abstractmethod
    def check(self, given: Input) -> None:
        """Raise unless the property holds for the input."""
