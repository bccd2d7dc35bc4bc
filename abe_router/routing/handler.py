"""A handler: the user's function, found by its path.

An import runs the user's code: a routes file is code, and is trusted like code.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from abe_router.errors import HandlerError, text_of
from abe_router.messages.message import Message
from abe_router.schema.payload_type import AnnotationUnusable, PayloadType, payload_type_of
from abe_router.text import did_you_mean, suggestion

_IMPORTLIB = os.path.dirname(importlib.__file__)  # noqa: PTH120
#: The folders of the standard library.
_LIBRARIES = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})  # noqa: PTH118
#: Most parts of the name of a module; Python refuses far fewer.
MAX_PARTS = 100


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that takes a payload and, if it has a second parameter, the Message.

    `payload_type` converts payloads to the annotated type. It is None if the handler takes decoded JSON.
    `unusable` is an annotation that payloads cannot be converted to, with the reason. It has no effect.

    Two handlers are equal if their paths are equal. New code under the same path needs a new process.
    """

    path: str
    call: Callable[..., Any] = field(compare=False, repr=False)
    is_async: bool = field(compare=False, default=True)
    wants_message: bool = field(compare=False, default=False)
    source: Path | None = field(compare=False, default=None, repr=False)
    payload_type: PayloadType | None = field(compare=False, default=None, repr=False)
    unusable: str = field(compare=False, default="", repr=False)


def handler_from(function: Callable[..., Any], path: str = "") -> Handler:
    """Return a function as a handler; raise HandlerError when it cannot be called with a payload."""
    name = path or f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', '?')}"
    if not callable(function):
        raise HandlerError(
            "callable", f"`{name}` is an object of type `{type(function).__name__}`, not a function"
        )
    if inspect.isclass(function):
        raise HandlerError(
            "callable", f"`{name}` is a class, not a function", hint="name a function or an instance's method"
        )
    try:
        return _handler(function, name)
    except HandlerError:
        raise
    except BaseException as error:  # such as wrappers in a circle
        _raise_if_interrupt(error)
        raise HandlerError("callable", f"`{name}` cannot be a handler: {_summary(error)}") from error


def _handler(function: Callable[..., Any], name: str) -> Handler:
    target: Any = function
    while isinstance(target, partial):
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__.__get__(target)
    try:
        wanted = _positional(function, name)
    except (TypeError, ValueError):  # a builtin without a signature: assume the least
        wanted = 1
    code = inspect.unwrap(target)
    source = inspect.getsourcefile(code) if inspect.isfunction(code) or inspect.ismethod(code) else None
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        raise HandlerError("signature", f"`{name}` is a generator", hint="return a value, do not `yield`")
    try:
        payload_type, unusable = payload_type_of(function), ""
    except AnnotationUnusable as error:
        payload_type, unusable = None, f"`{error.name}`: {error}"
    if payload_type is not None and payload_type.annotation in (Message, list[Message]):
        hint = "a handler is called as `f(payload)` or `f(payload, message)`"
        raise HandlerError("signature", f"`{name}` takes the Message first", hint=hint)
    return Handler(
        path=name,
        call=function,
        is_async=inspect.iscoroutinefunction(target),
        wants_message=wanted > 1,
        source=Path(source).resolve() if source else None,
        payload_type=payload_type,
        unusable=unusable,
    )


def _positional(function: Callable[..., Any], name: str) -> int:
    """Return how many positional arguments to pass, 1 or 2; raise HandlerError when neither fits."""
    p = inspect.Parameter
    parameters = list(inspect.signature(function).parameters.values())
    positional = [x for x in parameters if x.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [x for x in positional if x.default is p.empty]
    keywords = [x.name for x in parameters if x.kind is p.KEYWORD_ONLY and x.default is p.empty]
    many = any(x.kind is p.VAR_POSITIONAL for x in parameters)
    wanted = "a handler is called as `f(payload)` or `f(payload, message)`"
    if keywords:
        raise HandlerError("signature", f"`{name}` needs the keyword `{keywords[0]}`", hint=wanted)
    if len(required) > 2:
        raise HandlerError("signature", f"`{name}` needs {len(required)} arguments", hint=wanted)
    if not positional and not many:
        raise HandlerError("signature", f"`{name}` takes no argument", hint=wanted)
    # A second parameter with a default is the user's own unless it is called `message`, or `messages`.
    second = positional[1] if len(positional) > 1 else None
    asked = second is not None and (second.default is p.empty or second.name in {"message", "messages"})
    return 2 if asked else 1


def module_files(module: str) -> list[Path]:
    """Return the files that importing a module runs: its own and those of its packages. Import nothing."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return [Path(file) for name in names if (file := _file_of(name, sys.path))]


def put_first_on_import_path(folders: Iterable[Path]) -> None:
    """Put the folders first on the import path, in order, each once."""
    first = list(dict.fromkeys(str(folder) for folder in folders))
    if sys.path[: len(first)] != first:
        sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]


def import_handler(path: str, allow: Iterable[str] = ()) -> Handler:
    """Import `pkg.mod:function` and return it as a handler; raise HandlerError when that fails.

    `allow` are patterns of permitted paths, such as `shop.*`; without patterns, all are permitted. They apply
    to the path and to what is found there: the function must be defined in a permitted module too. Names with
    leading underscores and paths with more than two attributes are refused: a path names a function of a
    module, or a method of an object in it.
    """
    allowed = tuple(allow)
    module_name, attribute = _checked(path, allowed)
    found: Any = _import(module_name, path)
    for name in attribute.split("."):
        try:
            owner, found = found, getattr(found, name)
        except AttributeError:
            public = [n for n in dir(found) if not n.startswith("_")]
            same = [n for n in public if n.casefold() == name.casefold()]
            hint = f"did you mean `{same[0]}`?" if same else did_you_mean(name, public)
            if _defines(module_name, name):
                hint = "the file now defines it: restart the router, or use `serve --reload-handlers`"
            raise HandlerError(
                "attribute", f"module `{module_name}` has no function `{attribute}`", hint=hint
            ) from None
        except BaseException as error:
            _raise_if_interrupt(error)
            raise HandlerError(
                "attribute", f"`{attribute}` of module `{module_name}` raises {_summary(error)}"
            ) from error
        if inspect.ismodule(found):
            raise HandlerError(
                "forbidden",
                f"`{path}` leads to module `{found.__name__}`",
                hint="name a function of the module",
            )
    if allowed and path not in allowed:  # a pattern without wildcards names this very path
        _require_allowed(found, path, allowed)
    if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, name, None)):
        hint = f"make an object in the module, and name its method: `{module_name}:object.{name}`"
        raise HandlerError("signature", f"`{path}` is a method of a class, and needs an object", hint=hint)
    return handler_from(found, path)


def _require_allowed(found: Any, path: str, allowed: tuple[str, ...]) -> None:
    """Raise HandlerError when a function was defined in a module that no pattern permits.

    A permitted module contains what it imports from others, such as `os.system`.
    """
    module, name = _origin(found)
    if not any(fnmatchcase(module, a) or fnmatchcase(f"{module}:{name}", a) for a in allowed):
        raise HandlerError(
            "forbidden",
            f"`{path}` is defined in module `{module}`, which is not allowed",
            hint=f"allowed: {', '.join(allowed)}",
        )


def _origin(found: Any) -> tuple[str, str]:
    """Return the module that defines a function, and its name there; of an object, those of its class."""
    while isinstance(found, partial):
        found = found.func
    if inspect.ismethod(found):
        found = found.__func__
    elif inspect.isbuiltin(found) and found.__self__ is not None and not inspect.ismodule(found.__self__):
        found = type(found.__self__)  # a method that is written in C
    elif not inspect.isroutine(found) and not inspect.isclass(found):
        found = type(found)
    return str(getattr(found, "__module__", "") or ""), str(getattr(found, "__qualname__", ""))


def unimported_handler(path: str, allow: Iterable[str] = ()) -> Handler:
    """Return a handler that was not imported. Calling it raises HandlerError.

    Raise HandlerError if the path is malformed or not allowed, as `import_handler` does.
    """
    _checked(path, allow)

    def call(*_: Any) -> Any:
        raise HandlerError("module", f"handler `{path}` was not imported")

    return Handler(path, call)


def code_below(folder: Path) -> set[Path]:
    """Return the files of the imported modules below a folder.

    The files of a Python or of packages that are installed there are excluded, because no edit changes them.
    """
    return set(_modules_below(folder, set(sys.modules)).values())


def forget_imports(known: Collection[str], folders: Iterable[Path]) -> None:
    """Remove modules below the folders that are not in `known`, so that the next import loads them again."""
    imported = sys.modules.keys() - known
    for folder in folders:
        for name in _modules_below(folder, imported):
            sys.modules.pop(name, None)


def _modules_below(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    root = os.path.abspath(folder)  # noqa: PTH100  as the import path has it, not where a link leads
    inside = os.path.join(root, "")  # noqa: PTH118
    pythons = tuple(
        os.path.join(prefix, "")  # noqa: PTH118
        for prefix in {sys.prefix, sys.base_prefix}
        if prefix.startswith(inside)
    )
    files = [(name, getattr(sys.modules.get(name), "__file__", None)) for name in names]
    return {
        name: Path(file)
        for name, file in files
        if file and file.startswith(inside) and not file.startswith(pythons) and "-packages" not in file
    }


def _checked(path: str, allow: Iterable[str]) -> tuple[str, str]:
    """Return the module and the attribute of a path; raise HandlerError when malformed or not allowed."""
    module_name, colon, attribute = path.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    fits = colon and attribute.count(".") <= 1 and len(parts) <= MAX_PARTS
    if not fits or not all(part.isidentifier() for part in parts):
        module, dot, function = path.rpartition(".")
        dotted = dot and not colon and all(part.isidentifier() for part in path.split("."))
        hint = f"did you mean `{module}:{function}`?" if dotted else "write `package.module:function`"
        raise HandlerError("path", f"`{path}` is not a handler path", hint=hint)
    if any(part.startswith("_") for part in attribute.split(".")):
        raise HandlerError("forbidden", f"`{path}` names a private attribute", hint="name a public function")
    allowed = tuple(allow)
    if allowed and not any(fnmatchcase(module_name, a) or fnmatchcase(path, a) for a in allowed):
        raise HandlerError(
            "forbidden", f"handler `{path}` is not allowed", hint=f"allowed: {', '.join(allowed)}"
        )
    return module_name, attribute


def _import(module_name: str, path: str) -> Any:
    """Import a module. Raise different errors for a missing module and one that fails during its import."""
    if (known := sys.modules.get(module_name)) is None:
        importlib.invalidate_caches()
    elif (file := getattr(known, "__file__", None)) and module_name != "__main__":
        _require_same(module_name, str(file), tuple(sys.path))
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name if isinstance(error.name, str) else ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise HandlerError(
                "module",
                f"handler `{path}` cannot be imported: no module named `{missing}`",
                hint=_similar_module(missing),
            ) from None
        raise HandlerError(
            "module",
            f"handler `{path}` cannot be imported: it needs module `{missing}`, which is missing"
            f"{_place(error)}",
            hint=f"install it for this Python: {sys.executable}",
        ) from None
    except BaseException as error:
        _raise_if_interrupt(error)
        raise HandlerError(
            "module", f"handler `{path}` cannot be imported: {_summary(error)}{_place(error)}"
        ) from error


def _place(error: BaseException) -> str:
    """Return the last line of the user's code that an import reached, as ` (FILE:LINE)`.

    It is the last line outside the standard library and installed packages. A handler may itself be
    installed: then it is the last line in the folder of the first module that ran.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    ran = [f for f in frames if not f.filename.startswith(("<", _IMPORTLIB)) and f.filename != __file__]
    if not ran:
        return ""
    folder = os.path.dirname(ran[0].filename)  # noqa: PTH120
    own = [f for f in ran if not f.filename.startswith(_LIBRARIES) and "-packages" not in f.filename]
    own = own or [f for f in ran if f.filename.startswith(folder)]
    return f" ({own[-1].filename}:{own[-1].lineno})"


def _raise_if_interrupt(error: BaseException) -> None:
    """Raise the error again if it is Ctrl-C in the main thread."""
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error


def _summary(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text."""
    text = error.msg if isinstance(error, SyntaxError) else text_of(error)
    line = text.partition("\n")[0]
    return f"{type(error).__name__}: {line}"


@lru_cache(maxsize=1024)  # a file may name a thousand functions of one module
def _require_same(name: str, file: str, import_path: tuple[str, ...]) -> None:
    """Raise HandlerError when a module that was imported from `file` would now be found in other code.

    A process has one module of each name. Without this check, a second routes file would get the code of the
    first.
    """
    found = _file_of(name, import_path)
    if found is None or found == file or not (file.endswith(".py") and found.endswith(".py")):
        return
    try:
        if Path(file).samefile(found) or Path(file).read_bytes() == Path(found).read_bytes():
            return
    except (OSError, ValueError):  # the file is gone: it was moved, so there is only one
        return
    raise HandlerError(
        "module",
        f"module `{name}` was already imported from {file}, so this process cannot import {found}",
        hint="rename one of them",
    )


def _file_of(name: str, import_path: Sequence[str]) -> str | None:
    """Return the file that an import would load, or None. Nothing is imported."""
    places, parts, spec = import_path, name.split("."), None
    try:
        for count in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:count]), places)
            if spec is None:
                return None
            places = list(spec.submodule_search_locations or ())
    except Exception:  # noqa: BLE001  import hooks may be anyone's
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _defines(module_name: str, name: str) -> bool:
    """Return whether the file of an imported module seems to define a name at its top level."""
    try:
        text = Path(getattr(sys.modules[module_name], "__file__", None) or "").read_text("utf-8")
    except (OSError, ValueError):
        return False
    return re.search(rf"^(async +def +|def +|class +)?{re.escape(name)}\b", text, re.MULTILINE) is not None


def _similar_module(missing: str) -> str:
    """Return a hint with a similar module name, a module that is not installed, or where Python looked."""
    parent, _, name = missing.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", None) if parent else sys.path[:2]
    close = suggestion(name, [found.name for found in pkgutil.iter_modules(folders)]) if folders else None
    if close:
        return f"did you mean `{parent + '.' if parent else ''}{close}`?"
    if parent:
        return ""
    sources = (Path(folder, "src") for folder in sys.path[:2])
    if any(Path(source, name).is_dir() or Path(source, f"{name}.py").is_file() for source in sources):
        return f"`src/{name}` exists: install it with `pip install -e .`"
    looked = " and ".join(f"`{folder}`" for folder in dict.fromkeys(sys.path[:2]))
    return f"looked in {looked}, and among the packages of {sys.executable}"
