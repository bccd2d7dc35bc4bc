"""The targets, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence

from fuzz.target.answer import AnswerTarget
from fuzz.target.command import CommandTarget
from fuzz.target.config import ConfigTarget
from fuzz.target.edit import EditTarget
from fuzz.target.entry import EntryTarget
from fuzz.target.pattern import PatternTarget
from fuzz.target.payload import PayloadTarget
from fuzz.target.request import RequestTarget
from fuzz.target.round_trip import RoundTripTarget
from fuzz.target.row import PageTarget, RowTarget
from fuzz.target.schema import SchemaTarget
from fuzz.target.target import Target
from fuzz.target.text import TextTarget

TARGETS: Sequence[Target] = (
    ConfigTarget(),
    CommandTarget(),
    SchemaTarget(),
    PayloadTarget(),
    PatternTarget(),
    TextTarget(),
    EditTarget(),
    RoundTripTarget("memory"),
    RoundTripTarget("sqlite"),
    RowTarget(),
    PageTarget(),
    EntryTarget(),
    AnswerTarget(),
    RequestTarget(),
)
