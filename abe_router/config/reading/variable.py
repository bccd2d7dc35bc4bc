"""`${VAR}` and `${VAR:-default}`, replaced in scalars after the file was parsed.

The replacement is text within one scalar: it can never add a key, an item or a line to the file. `$${`
stands for a plain `${`; a `$` before anything else is itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from abe_router.files.source import MAX_BYTES

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{")


class VariableError(ValueError):
    """Raised for a reference that cannot be replaced; `offset` and `width`, in characters, say which."""

    def __init__(self, message: str, hint: str, match: re.Match[str]) -> None:
        self.hint, self.offset, self.width = hint, match.start(), len(match[0])
        super().__init__(message)


def has_variables(text: str) -> bool:
    """Return whether there is anything to replace."""
    return "${" in text


def interpolate(text: str, env: Mapping[str, str], used: dict[str, str] | None = None) -> str:
    """Return the text with every reference replaced; an empty variable counts as unset, as in a shell.

    Note the variables that were replaced in `used`. Raise VariableError when a reference is malformed, is
    unset and has no default, or makes the text too long.
    """
    size = len(text)

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match[0] == "$${":
            return "${"
        if name is None:
            raise VariableError(
                "`${` does not begin a variable",
                "write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`",
                match,
            )
        if default is not None and "${" in default:
            raise VariableError(
                "a default cannot contain another variable", "write a value without variables", match
            )
        if value := env.get(name):
            nonlocal size
            size += len(value)
            if size > MAX_BYTES:
                raise VariableError(
                    f"variables make the value longer than {MAX_BYTES:,} characters", "shorten it", match
                )
            if used is not None:
                used[name] = value
            return value
        if default is not None:
            return default
        if value is not None:
            return ""
        raise VariableError(
            f"variable `{name}` is not set", f"set it, or give a default: `${{{name}:-...}}`", match
        )

    return _REFERENCE.sub(replace, text)
