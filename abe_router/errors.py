"""Every error this package raises, in one tree.

AbeRouterError
 ├─ ConfigError            the routes file has faults; `.diagnostics` holds all of them
 ├─ SchemaInvalid          a document is not a usable JSON Schema; `.faults` holds all of them
 ├─ HandlerError           a handler path cannot be turned into a function
 ├─ PublishError           a message was refused before it reached the backend
 │   ├─ NoRoute            no key or pattern of the file names the key
 │   ├─ KeyInvalid         the routing key is malformed
 │   ├─ IdInvalid          the message has no valid id where the file says it is
 │   ├─ PayloadUnencodable the payload is not JSON, too large or too deep
 │   └─ PayloadInvalid     the payload breaks its schema; `.violations` holds all of them
 ├─ BatchMismatch          a batch handler returned a list of the wrong length
 ├─ TooManyHops            a message passed through too many handlers that emit
 ├─ PayloadUnfit           a payload does not fit the annotation of its handler
 ├─ PayloadMalformed       a delivered body is not JSON, too large or too deep
 ├─ SubscriptionClosed     raised by `fetch` if the handle or its backend is closed
 └─ BackendError
     ├─ UnknownProvider    no provider has that name or URL scheme
     └─ BackendUnavailable the server or file cannot be reached; the operation may be tried again

Two more are raised by handlers, to say how a delivery ends: `Reject` and `Retry`.
"""

from __future__ import annotations

import math
import os
import re
import traceback
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from abe_router.diagnostic import Diagnostic, render_all

_PACKAGE = str(Path(__file__).parent) + os.sep
#: Frames as they are printed, by their code and instruction: finding the line and the part of it that failed
#: takes longer than all else that a failure costs. An entry keeps its code, so that the id stays its own.
_frame_texts: dict[tuple[int, int], tuple[CodeType, str]] = {}
_MOST_FRAMES = 1000
#: Errors whose traceback ends with more than their text: a position, or a name that is like the wrong one.
_WITH_MORE = (SyntaxError, NameError, AttributeError, ImportError)
#: What the end of a traceback begins with: the name of a type, alone or before a text.
_TYPE = re.compile(r"[\w.<>]+(?:: |$)")
#: Modules that a traceback does not name.
_UNNAMED = ("__main__", "builtins")
_NOT_OF_USERS = (_PACKAGE, "<frozen")
_STDLIB = str(Path(os.__file__).parent) + os.sep
#: The folders of installed packages; they may lie in that of the standard library.
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: What Python adds to the name of a function for a comprehension, before 3.12.
_COMPREHENSION = re.compile(r"(\.<locals>)?\.<(list|dict|set)comp>$|(\.<locals>)?\.<genexpr>$")


class AbeRouterError(Exception):
    """Base of every error that this package raises. Its text is one sentence."""


class ConfigError(AbeRouterError):
    """Raised when a routes file has at least one error. It carries every fault that was found."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        first = self.diagnostics[0]
        more = f" (and {len(self.diagnostics) - 1} more)" if len(self.diagnostics) > 1 else ""
        super().__init__(f"{first.path}:{first.line}:{first.column}: {first.message}{more}")
        self.add_note(render_all(self.diagnostics))  # below a traceback, as `abe-router check` prints them


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """One reason why a document is not a usable JSON Schema.

    `kind` is one of `missing`, `unreadable`, `syntax`, `dialect`, `schema`, `outside`, `reference`; or it is
    `ignored`, which refuses nothing. `pointer` is a JSON pointer into the document. A syntax error has a
    `line` and a `column` instead, which count from 1. `path` is None for a schema that is written in the
    routes file.
    """

    kind: str
    message: str
    path: Path | None = None
    pointer: str = ""
    hint: str = ""
    line: int = 0
    column: int = 0


class SchemaInvalid(AbeRouterError):
    """Raised when a document is not a usable JSON Schema. It carries every fault, at least one."""

    def __init__(self, name: str, faults: Sequence[SchemaFault]) -> None:
        self.name, self.faults = name, tuple(faults)
        self.pointer, self.hint = self.faults[0].pointer, self.faults[0].hint
        super().__init__(f"schema `{name}`: {self.faults[0].message}")


class HandlerError(AbeRouterError):
    """Raised when a handler path cannot be turned into a function.

    `kind` is one of `path`, `module`, `attribute`, `callable`, `signature`, `forbidden`, `writable`.
    """

    def __init__(self, kind: str, message: str, *, hint: str = "") -> None:
        self.kind, self.hint = kind, hint
        super().__init__(message)


class PublishError(AbeRouterError):
    """Base of the errors that refuse a message before it reaches the backend."""


class NoRoute(PublishError):
    """Raised when no key, and no pattern but a catch-all such as `#`, of the routes file matches the key."""


class KeyInvalid(PublishError):
    """Raised when a routing key is not dotted words."""


class IdInvalid(PublishError):
    """Raised when a message has no valid id where the routes file says that it has one."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(f"message for `{key}` has no valid id: {message}")


class PayloadUnencodable(PublishError):
    """Raised when a payload is not JSON, or is larger or deeper than allowed."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a payload breaks a schema. Values that the schema marks as sensitive are masked.

    `pointer` is a JSON pointer into the payload, `keyword` the keyword of the schema that it breaks, and
    `schema_pointer` the location of that keyword. `note` is set on the first violation if the list is not
    complete, and says so.
    """

    pointer: str
    keyword: str
    expected: str
    found: str
    schema_pointer: str = ""
    note: str = ""

    def __str__(self) -> str:
        text = f"at {self.pointer or '(root)'}: {self.keyword}: expected {self.expected}, found {self.found}"
        return f"{text} ({self.note})" if self.note else text


class PayloadInvalid(PublishError):
    """Raised when a payload breaks its schema. It carries the violations."""

    def __init__(self, key: str, violations: Sequence[Violation]) -> None:
        self.key, self.violations = key, tuple(violations)
        super().__init__(f"payload for `{key}` is invalid: " + "; ".join(map(str, self.violations)))


class BatchMismatch(AbeRouterError):
    """Raised when a batch handler returns a list with another number of items than it received."""


class TooManyHops(AbeRouterError):
    """Raised when a message passed through too many handlers that emit: the routes form a cycle."""


class PayloadUnfit(AbeRouterError):
    """Raised when a payload does not fit its handler's annotation.

    `pointer` is a JSON pointer to the first fault, `keyword` the keyword of JSON Schema that means the same.
    """

    def __init__(self, message: str, pointer: str = "", keyword: str = "") -> None:
        self.pointer, self.keyword = pointer, keyword
        super().__init__(message)


class PayloadMalformed(AbeRouterError):
    """Raised when a delivered body is not JSON, or is larger or deeper than allowed."""


class SubscriptionClosed(AbeRouterError):
    """Raised by `Subscription.fetch` if the handle or its backend is closed. It never delivers again."""


class BackendError(AbeRouterError):
    """Base of the errors of a backend.

    `settled` are the deliveries that `settle` is known to have settled before it raised.
    """

    settled: Collection[Any] = ()


class UnknownProvider(BackendError):
    """Raised when no provider has that name or URL scheme."""


class BackendUnavailable(BackendError):
    """Raised when the server or file cannot be reached. The operation may be tried again."""


class PublishTimeout(BackendUnavailable):
    """Raised when a publish takes longer than its time limit. Its text says what to do.

    `sent` is False if the message never left, so that it was not accepted and is not accepted later. With
    True it may have been accepted: a message with the same id, under `dedupe`, is no duplicate.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), sent=self.sent), self.args


class Reject(Exception):
    """Raise it in a handler to make the message a dead letter at once, if another attempt cannot help."""


class Retry(Exception):
    """Raise it in a handler to request another attempt.

    `after` is the delay, in seconds or as a timedelta. A negative value means no delay. With None, the retry
    policy of the route sets the delay. The attempt counts, so the limit of the policy still applies. Raise
    TypeError or ValueError if `after` is not a delay.
    """

    def __init__(self, message: str = "", *, after: float | timedelta | None = None) -> None:
        self.after = None if after is None else _delay(after)
        super().__init__(message or "the handler asked for another attempt")


def text_of(error: BaseException) -> str:
    """Return the text of an error, or a text that says that its `__str__` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its own code may raise anything
        return "its text cannot be made: its __str__ raises"


def user_traceback(error: BaseException, hide: Callable[[str], str] | None = None) -> str:
    """Return the traceback of an error of a handler, without the frames of this package that called it.

    `hide` returns what is shown of a text of an error. The frames stay as they are.
    """
    is_chained = error.__cause__ is not None or not (error.__context__ is None or error.__suppress_context__)
    if is_chained or isinstance(error, BaseExceptionGroup):
        return _chained_traceback(error, hide)
    frames: list[TracebackType] = []
    ours: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        is_ours = trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)
        (ours if is_ours else frames).append(trace)
        trace = trace.tb_next
    shown = [_frame_text(each) for each in frames or ours]  # without any of the handler, the fault is ours
    if len(shown) > 3 and any(map(str.__eq__, shown, shown[1:])):
        return _chained_traceback(error, hide)  # a recursion, of which only the first few frames are shown
    title = ["Traceback (most recent call last):\n"] if shown else []
    final = _final_line(error)
    return "".join([*title, *shown, final if hide is None else _hidden(final, hide)])


def _frame_text(trace: TracebackType) -> str:
    """Return the first frame of a traceback as it is printed."""
    code = trace.tb_frame.f_code
    key = id(code), trace.tb_lasti
    known = _frame_texts.get(key)
    if known is None:
        while len(_frame_texts) >= _MOST_FRAMES:
            del _frame_texts[next(iter(_frame_texts))]
        known = _frame_texts[key] = code, "".join(traceback.extract_tb(trace, limit=1).format())
    return known[1]


def _final_line(error: BaseException) -> str:
    """Return the type and the text of an error as a traceback ends with them."""
    if isinstance(error, _WITH_MORE) or getattr(error, "__notes__", None):
        # With the trace, whose innermost frame has the names that are like a wrong one.
        whole = traceback.TracebackException(type(error), error, error.__traceback__, limit=1)
        return "".join(whole.format_exception_only())
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  its own code may raise anything
        text = "<exception str() failed>"
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in _UNNAMED else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {text}\n" if text else f"{name}\n"


def _hidden(final: str, hide: Callable[[str], str]) -> str:
    """Return what a traceback ends with, with what is shown of the text behind the name of the type."""
    final = final.rstrip("\n")
    named = _TYPE.match(final)
    at = named.end() if named else 0
    return f"{final[:at]}{hide(final[at:])}\n"


def _chained_traceback(error: BaseException, hide: Callable[[str], str] | None) -> str:
    shown = traceback.TracebackException.from_exception(error)
    left: list[traceback.TracebackException | None] = [shown]
    while left:
        if (each := left.pop()) is None:
            continue
        frames = [frame for frame in each.stack if not frame.filename.startswith(_PACKAGE)]
        if frames:  # without any, the fault is ours
            each.stack = traceback.StackSummary.from_list(frames)
        if hide is not None:
            _replace_text(each, _hidden("".join(each.format_exception_only()), hide))
        left += [each.__cause__, each.__context__, *(each.exceptions or ())]
    return "".join(shown.format())


def _replace_text(shown: traceback.TracebackException, text: str) -> None:
    """Make `format` show this text in place of the type and the text of the error."""

    def format_exception_only(**_options: Any) -> Generator[str, None, None]:
        yield text

    shown.format_exception_only = format_exception_only  # type: ignore[method-assign]


def type_name(error: BaseException) -> str:
    """Return the qualified type of an error. One of Python's own or of this package has no module."""
    kind = type(error)
    is_known = kind.__module__.partition(".")[0] in ("builtins", "abe_router")
    return kind.__qualname__ if is_known else f"{kind.__module__}.{kind.__qualname__}"


def first_cause(error: BaseException) -> BaseException:
    """Return the error itself, or the first one of an exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def user_frame(error: BaseException) -> str:
    """Return the innermost frame of the user's code in the traceback of an error, as `module:function`.

    The user's code is what lies outside of the standard library and of installed packages, and every module
    of the package that the handler is in. The line is left out, so that an edit of the file changes nothing.
    The result is empty if no code of the user ran.
    """
    module, function, package, trace = "", "", None, error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        code = frame.f_code
        path = code.co_filename
        if path.startswith(_NOT_OF_USERS):
            continue
        is_installed = _INSTALLED[0] in path or _INSTALLED[1] in path
        if path.startswith(_STDLIB) and not is_installed:
            continue
        name = str(frame.f_globals.get("__name__", ""))
        top = name.partition(".")[0]
        if package is None:
            package = top  # the outermost one is that of the handler
        if top == package or not is_installed:
            module, function = name, code.co_qualname
    if function.endswith(">"):
        function = _COMPREHENSION.sub("", function)
    return f"{module}:{function}" if function else ""


def _delay(after: float | timedelta) -> float:
    if isinstance(after, timedelta):
        after = after.total_seconds()
    if not isinstance(after, int | float):
        raise TypeError(f"Retry(after=...) takes seconds or a timedelta, not {type(after).__name__}")
    if not math.isfinite(after):
        raise ValueError(f"Retry(after=...) takes a finite number of seconds, not {after}")
    return max(0.0, after)
