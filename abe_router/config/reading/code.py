"""The codes of faults, each explained in `docs/errors.md`. R refuses the file, W does not."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """The kind of a fault. A code keeps its meaning for good, and a dropped code is not used again."""

    UNREADABLE = "R001"
    TOO_LARGE = "R002"
    NOT_TEXT = "R003"
    WORLD_WRITABLE = "R004"
    SYNTAX = "R005"
    NOT_OF_THE_LANGUAGE = "R006"
    AMBIGUOUS = "R007"
    DUPLICATE_KEY = "R008"
    VARIABLE = "R009"
    NO_ROUTES = "R010"

    UNKNOWN_OPTION = "R101"
    WRONG_TYPE = "R102"
    DURATION = "R103"
    VALUE = "R104"
    KEY = "R105"
    GROUP = "R106"
    DUPLICATE_GROUP = "R107"
    MISSING_OPTION = "R108"
    TIMESTAMP = "R109"
    RATE = "R110"
    EMIT = "R111"
    CASE = "R112"
    POINTER = "R113"
    ID = "R114"

    SCHEMA_MISSING = "R201"
    SCHEMA_SYNTAX = "R202"
    SCHEMA_INVALID = "R203"
    SCHEMA_DIALECT = "R204"
    SCHEMA_OUTSIDE = "R205"
    SCHEMA_REFERENCE = "R206"
    SCHEMA_UNREADABLE = "R207"

    HANDLER_PATH = "R301"
    HANDLER_MODULE = "R302"
    HANDLER_ATTRIBUTE = "R303"
    HANDLER_CALLABLE = "R304"
    HANDLER_SIGNATURE = "R305"
    HANDLER_FORBIDDEN = "R306"

    BACKEND_UNKNOWN = "R401"
    BACKEND_URL = "R402"

    UNCHECKED_PATTERN = "W101"
    RETRY_WINDOW = "W102"
    TOO_MANY_THREADS = "W103"
    BACKEND_CANNOT = "W104"
    OVERLAPPING_GROUP = "W105"
    TIMEOUT_OVER_DRAIN = "W106"
    NOTHING_ROUTED = "W107"
    COMMENTED_PATTERN = "W108"
    BATCH_WAIT = "W109"
    TOO_MANY_IN_FLIGHT = "W110"
    NOT_A_BATCH_HANDLER = "W111"
    TYPE_CONTRADICTED = "W112"
    CYCLE = "W113"
    ID_NOWHERE = "W114"
