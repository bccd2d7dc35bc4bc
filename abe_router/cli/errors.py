"""How a command ends: the exit codes, and one line for each kind of error."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback

import click

from abe_router.cli.output import print_message, wants_color
from abe_router.diagnostic import Severity, render_all
from abe_router.errors import AbeRouterError, BackendError, BackendUnavailable, ConfigError, PayloadInvalid
from abe_router.operations.errors import BackendNotShared, OperationError
from abe_router.text import counted, mask_credentials, printable

#: The numbers from 64 on are those of BSD's sysexits.h.
OK, FINDINGS, USAGE, UNAVAILABLE, BUG, CONFIG = 0, 1, 2, 69, 70, 78
#: What a shell reports for a process that SIGINT or SIGPIPE ended.
INTERRUPTED, BROKEN_PIPE = 130, 141
#: Errors of a write that are not our fault: the disk is full, a quota or a limit is reached.
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CommandError(Exception):
    """Raised by a command to end with `code`, a line of error and an optional hint."""

    def __init__(self, message: str, *, hint: str = "", code: int = FINDINGS) -> None:
        self.hint, self.code = hint, code
        super().__init__(message)


def report_error(error: Exception) -> int:
    """Write to stderr why a command failed, and return its exit code."""
    match error:
        case click.Abort():
            print_message("aborted")
            return INTERRUPTED
        case click.NoSuchOption() if error.possibilities and error.ctx:
            options = [p for p in error.ctx.command.params if isinstance(p, click.Option) and not p.hidden]
            close = [name for name in error.possibilities if any(name in p.opts for p in options)]
            meant = f", did you mean '{close[0]}'?" if close else ""
            hint = f"see `{error.ctx.command_path} --help`"
            return _report(f"no such option '{error.option_name}'{meant}", hint, USAGE)
        case click.exceptions.NoArgsIsHelpError():
            print_message(error.format_message())
            return USAGE
        case click.MissingParameter() if error.param is not None:
            kind, name = error.param.param_type_name, error.param.get_error_hint(error.ctx)
            return _report(f"missing {kind} {name}", f"see `{_command(error)} --help`", USAGE)
        case click.BadParameter() if error.param is not None:
            message = f"invalid value for {error.param.get_error_hint(error.ctx)}: {error.message}"
            return _report(message.rstrip("."), f"see `{_command(error)} --help`", USAGE)
        case click.UsageError():
            return _report(_lowered(error.format_message()), f"see `{_command(error)} --help`", USAGE)
        case click.ClickException():
            return _report(_lowered(error.format_message()), "", error.exit_code)
        case CommandError():
            return _report(str(error), error.hint, error.code)
        case OperationError():
            code = CONFIG if isinstance(error, BackendNotShared) else FINDINGS
            return _report(str(error), error.hint, code)
        case ConfigError():
            print_message(render_all(error.diagnostics, color=wants_color(sys.stderr)))
            faults = sum(d.severity is Severity.ERROR for d in error.diagnostics)
            path = error.diagnostics[0].path
            return _report(f"{path} cannot be used: {counted(faults, 'error')}", "", CONFIG)
        case BackendUnavailable():
            hint = "is it running? --backend or ABE_ROUTER_BACKEND names another backend"
            return _report(str(error), hint, UNAVAILABLE)
        case BackendError():
            return _report(str(error), "", CONFIG)
        case PayloadInvalid() if len(error.violations) > 1:
            for violation in error.violations:
                print_message(f"  {printable(str(violation))}")
            places = len(error.violations)
            return _report(f"payload for `{error.key}` breaks its schema in {places} places", "", FINDINGS)
        case AbeRouterError():
            return _report(str(error), "", FINDINGS)
        case OSError() if error.filename is not None:
            return _report(f"{error.filename}: {error.strerror}", "", FINDINGS)
        case OSError() if error.errno in _WRITE_ERRORS:
            return _report(f"cannot write the output: {(error.strerror or '').lower()}", "", FINDINGS)
    return _report_bug(error)


def _report_bug(error: Exception) -> int:
    """Report an error that is not the user's; the traceback is shown only on request."""
    if os.environ.get("ABE_ROUTER_DEBUG") or logging.getLogger().level == logging.DEBUG:
        lines = "".join(traceback.format_exception(error)).splitlines()
        print_message("\n".join(printable(mask_credentials(line)) for line in lines))
        hint = "this is a bug in abe-router; please report it with the traceback above"
    else:
        hint = "this is a bug in abe-router; set ABE_ROUTER_DEBUG=1 to show the traceback"
    return _report(f"{type(error).__name__}: {error}", hint, BUG)


def _report(message: str, hint: str, code: int) -> int:
    print_message(f"error: {printable(mask_credentials(message))}")
    if hint:
        print_message(f"hint: {printable(hint)}")
    return code


def _command(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "abe-router"


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
