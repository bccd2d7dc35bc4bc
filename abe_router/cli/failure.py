"""How a command ends: the exit codes, and one line of error for each way to fail."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback

import click

from abe_router.cli.screen import say, wants_color
from abe_router.diagnostic import Severity, render_all
from abe_router.errors import AbeRouterError, BackendError, BackendUnavailable, ConfigError, PayloadInvalid
from abe_router.text import counted, mask_credentials, printable

#: The numbers from 64 on are those of BSD's sysexits.h.
OK, FINDINGS, USAGE, UNAVAILABLE, BUG, CONFIG = 0, 1, 2, 69, 70, 78
#: What a shell reports for a process that the signals SIGINT and SIGPIPE ended.
INTERRUPTED, BROKEN_PIPE = 130, 141
#: Why a stream may not take what is written to it, through no fault of ours.
_NOT_TAKEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Failure(Exception):
    """Raised by a command to end with `code`, one line of error and perhaps one of hint."""

    def __init__(self, message: str, *, hint: str = "", code: int = FINDINGS) -> None:
        self.hint, self.code = hint, code
        super().__init__(message)


def end(error: Exception) -> int:
    """Say on stderr why a command failed, and return its exit code."""
    match error:
        case click.Abort():
            say("aborted")
            return INTERRUPTED
        case click.NoSuchOption() if error.possibilities and error.ctx:
            options = [p for p in error.ctx.command.params if isinstance(p, click.Option) and not p.hidden]
            close = [name for name in error.possibilities if any(name in p.opts for p in options)]
            meant = f", did you mean '{close[0]}'?" if close else ""
            hint = f"see `{error.ctx.command_path} --help`"
            return _say(f"no such option '{error.option_name}'{meant}", hint, USAGE)
        case click.exceptions.NoArgsIsHelpError():
            say(error.format_message())
            return USAGE
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "abe-router"
            return _say(_lowered(error.format_message()), f"see `{command} --help`", USAGE)
        case click.ClickException():
            return _say(_lowered(error.format_message()), "", error.exit_code)
        case Failure():
            return _say(str(error), error.hint, error.code)
        case ConfigError():
            say(render_all(error.diagnostics, color=wants_color(sys.stderr)))
            faults = sum(d.severity is Severity.ERROR for d in error.diagnostics)
            path = error.diagnostics[0].path
            return _say(f"{path} cannot be used: {counted(faults, 'error')}", "", CONFIG)
        case BackendUnavailable():
            hint = "--backend, or ABE_ROUTER_BACKEND, names another than the file's"
            return _say(str(error), hint, UNAVAILABLE)
        case BackendError():
            return _say(str(error), "", CONFIG)
        case PayloadInvalid() if len(error.violations) > 1:
            for violation in error.violations:
                say(f"  {printable(str(violation))}")
            return _say(
                f"payload for `{error.key}` breaks its schema in {len(error.violations)} places", "", FINDINGS
            )
        case AbeRouterError():
            return _say(str(error), "", FINDINGS)
        case OSError() if error.filename is not None:
            return _say(f"{error.filename}: {error.strerror}", "", FINDINGS)
        case OSError() if error.errno in _NOT_TAKEN:
            return _say(f"the output cannot be written: {(error.strerror or '').lower()}", "", FINDINGS)
    return _bug(error)


def _bug(error: Exception) -> int:
    """Report what is no fault of the user; the traceback only on request."""
    if os.environ.get("ABE_ROUTER_DEBUG") or logging.getLogger().level == logging.DEBUG:
        say("".join(traceback.format_exception(error)).rstrip())
        hint = "please report it with the traceback above"
    else:
        hint = "this is a bug; ABE_ROUTER_DEBUG=1 shows the traceback to report"
    return _say(f"{type(error).__name__}: {error}", hint, BUG)


def _say(message: str, hint: str, code: int) -> int:
    say(f"error: {printable(mask_credentials(message))}")
    if hint:
        say(f"hint: {printable(hint)}")
    return code


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
