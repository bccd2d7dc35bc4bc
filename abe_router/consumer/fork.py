"""Forks: a child process that a handler forks must not become a second router.

The child has copies of the event loop, of its self-pipe, and of the connections to the backend. If it
returned to the event loop, it would run the parent's messages and use the parent's connections. Therefore
it ends where it would leave the handler: with the code of `sys.exit`, 0 when the handler returns, 1 for
another error and when the handler awaits something.

A child that replaces itself by another program, or ends itself by `os._exit` as `multiprocessing` does, is
not affected. Nor is a process whose fork has no handler in its call stack, such as that of a web server.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import thread
from types import CodeType, FrameType
from typing import Any, NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

#: What a child writes to stderr at its end, in bytes at most: what a pipe accepts without blocking.
_MAX_WRITE = select.PIPE_BUF
#: The code of the functions that call handlers, each with whether it continues after a call.
_callers: dict[CodeType, bool] = {}
#: The code that calls the functions of `asyncio.to_thread` and of thread pools.
_POOL = thread._WorkItem.run.__code__  # noqa: SLF001  it has no public name
_is_child = False


def calls_handlers(*, continues: bool = False) -> Callable[[Function], Function]:
    """Mark a function as one that calls handlers: a forked child ends before it leaves the function.

    One that `continues` has more lines after the call, and the child ends before the next one. The function
    passes what the handler raises to `end_forked_child` before anything else.
    """

    def mark(function: Function) -> Function:
        _callers[function.__code__] = continues
        return function

    return mark


def end_forked_child(error: BaseException) -> None:
    """End the process if a handler has forked it; `error` is what the handler raised."""
    if _is_child:
        _end(error)


def contain_forks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function that ends a forked child where `function` returns or raises."""

    @calls_handlers()
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:
            end_forked_child(error)
            raise

    return call


def _after_fork() -> None:
    """In the child, watch the function that has called the handler, if one has."""
    global _is_child
    frame, above = sys._getframe(), None  # noqa: SLF001  no other function starts at the caller
    while frame is not None and frame.f_globals.get("__name__") != "multiprocessing.popen_fork":
        if frame.f_code in _callers:
            _is_child = True
            _watch(frame, continues=_callers[frame.f_code])
            return
        if frame.f_code is _POOL and above is not None and _callers:
            _watch(above, foreign=True)
            return
        frame, above = frame.f_back, frame  # type: ignore[assignment]


def _watch(frame: FrameType, *, continues: bool = False, foreign: bool = False) -> None:
    """End the process when `frame` returns, raises or awaits; if it `continues`, at its next line.

    A `foreign` frame is that of any function, which may handle exceptions itself. Tracing makes calls in the
    child a little slower; it is the one way to learn that a frame of an event loop is left.
    """
    raised: list[BaseException] = []

    def trace(_: FrameType, event: str, value: Any) -> Any:
        if event == "exception":
            raised[:] = value[1:2]
        elif event == "line" and foreign:
            raised.clear()
        elif event == "line":
            _end(raised[0] if raised else None)
        elif event == "return":
            if raised and foreign:
                _end(raised[0])
            _end(None, awaits=asyncio.isfuture(value))
        return trace

    frame.f_trace, frame.f_trace_lines = trace, continues or foreign
    sys.settrace(lambda *_: None)


def _end(error: BaseException | None, *, awaits: bool = False) -> NoReturn:
    text, code = "", 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            code = error.code & 0xFF
        elif error.code is not None:
            text, code = f"{error.code}\n", 1
    elif error is not None:
        text, code = "".join(traceback.format_exception(error)), 1
    elif awaits:
        text, code = "a process that a handler forked awaits something: it is ended\n", 1
    try:
        if text and select.select([], [2], [], 0)[1]:
            os.write(2, text.encode(errors="backslashreplace")[-_MAX_WRITE:])
    finally:
        os._exit(code)


os.register_at_fork(after_in_child=_after_fork)
