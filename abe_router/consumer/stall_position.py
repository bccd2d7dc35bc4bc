"""Where a blocked event loop stands: the handler, and the line of its file."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import FrameType

from abe_router.consumer.attempt import route_called_in
from abe_router.routing.route import Route


def describe_stall(thread: int, seconds: float) -> str:
    """Return a log line about an event loop, by the thread it runs in, that is blocked for so long.

    The line is the innermost one in the file of the handler. When no handler is called, such as in a task
    that a handler has made, it is the innermost one of all. Raise KeyError when there is no such thread.
    """
    frames: list[FrameType] = []
    frame: FrameType | None = sys._current_frames()[thread]  # noqa: SLF001  no other function shows a thread
    route: Route | None = None
    while frame is not None and route is None:
        frames.append(frame)
        route, frame = route_called_in(frame), frame.f_back
    if route is None:
        return (
            f"the event loop has been blocked for {seconds:.1f} s at {_position(frames[0])}; "
            "call what blocks in a thread, or await"
        )
    own = [each for each in frames if _is_in_file_of(route, each)]
    if not own:
        return f"route {route.name} has blocked the event loop for {seconds:.1f} s at {_position(frames[0])}"
    return (
        f"route {route.name}: handler {route.handler.path} has blocked the event loop for {seconds:.1f} s "
        f"at {_position(own[0])}; use a plain (not async) handler or await"
    )


def _is_in_file_of(route: Route, frame: FrameType) -> bool:
    source = route.handler.source
    return source is not None and os.path.realpath(frame.f_code.co_filename) == str(source)


def _position(frame: FrameType) -> str:
    """Return file and line, relative to the current folder if the file is below it."""
    path = frame.f_code.co_filename
    with suppress(OSError, ValueError):  # the folder was removed, or is on another drive
        relative = os.path.relpath(path)
        path = path if relative.startswith(os.pardir) else relative
    return f"{path}:{frame.f_lineno}"
