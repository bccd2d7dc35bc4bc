from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import pytest

from abe_router.errors import HandlerError
from abe_router.messages.message import Message
from abe_router.routing.handler import (
    code_below,
    handler_from,
    import_handler,
    put_first_on_import_path,
    unimported_handler,
)


async def plain(payload): ...


def sync(payload): ...


def with_message(payload, message): ...


def with_default_message(payload, message=None): ...


def with_own_default(payload, currency="EUR"): ...


def with_rest(payload, *rest, **named): ...


class Ledger:
    async def book(self, payload): ...

    async def __call__(self, payload, message): ...

    @staticmethod
    def note(payload): ...


def decorated(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("function", "is_async", "wants_message"),
    [
        (plain, True, False),
        (sync, False, False),
        (with_message, False, True),
        (with_default_message, False, True),
        (with_own_default, False, False),
        (with_rest, False, False),
        (Ledger().book, True, False),
        (Ledger(), True, True),
        (Ledger.note, False, False),
        (functools.partial(with_message, message=None), False, False),
        (functools.partial(plain), True, False),
        (decorated(plain), True, False),
        (print, False, False),
    ],
)
def test_signature_decides_whether_a_handler_is_async_and_gets_the_message(function, is_async, wants_message):
    handler = handler_from(function, "x:y")
    assert (handler.is_async, handler.wants_message) == (is_async, wants_message)


def nothing(): ...


def three(a, b, c): ...


def needs_keyword(payload, *, currency): ...


def generator(payload):
    yield payload


async def async_generator(payload):
    yield payload


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        (nothing, "signature"),
        (three, "signature"),
        (needs_keyword, "signature"),
        (generator, "signature"),
        (async_generator, "signature"),
        (3, "callable"),
        (None, "callable"),
        (Ledger, "callable"),
    ],
)
def test_object_that_cannot_be_called_with_a_payload_is_refused(thing, kind):
    with pytest.raises(HandlerError) as caught:
        handler_from(thing, "x:y")
    assert caught.value.kind == kind


def test_handlers_with_the_same_path_are_equal():
    assert handler_from(plain, "a:b") == handler_from(sync, "a:b")
    assert handler_from(plain, "a:b") != handler_from(plain, "a:c")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Put an empty folder first on the import path, and remove the modules imported from it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    put_first_on_import_path([tmp_path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_handler_path_is_imported_from_a_package(folder):
    (folder / "pkg_of_handlers").mkdir()
    (folder / "pkg_of_handlers" / "__init__.py").touch()
    module = folder / "pkg_of_handlers" / "mod.py"
    module.write_text("async def f(payload): ...\nclass C:\n    def m(self, payload): ...\nobject_ = C()\n")
    handler = import_handler("pkg_of_handlers.mod:f")
    assert handler.is_async
    assert handler.source == module
    assert not import_handler("pkg_of_handlers.mod:object_.m").is_async


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("mod", "path"),
        ("mod:", "path"),
        (":f", "path"),
        ("mod:f:g", "path"),
        ("mod:f()", "path"),
        ("mod:a.b.c", "path"),
        ("../mod:f", "path"),
        ("mod.:f", "path"),
        ("mod:_f", "forbidden"),
        ("mod:f.__globals__", "forbidden"),
        ("os:system", "forbidden"),
    ],
)
@pytest.mark.parametrize("find", [import_handler, unimported_handler])
def test_handler_path_that_is_malformed_private_or_not_allowed_is_refused(path, kind, find):
    with pytest.raises(HandlerError) as caught:
        find(path, ["mod", "mod.*"])
    assert caught.value.kind == kind


@pytest.mark.parametrize("allow", [["shop"], ["shop*"], ["shop:f"], ["*:f"], ["x", "shop"]])
def test_allow_pattern_matches_a_module_or_a_whole_path(allow):
    assert unimported_handler("shop:f", allow).path == "shop:f"


def test_error_for_a_path_without_a_colon_suggests_one():
    with pytest.raises(HandlerError) as caught:
        import_handler("shop.orders.charge")
    assert caught.value.hint == "did you mean `shop.orders:charge`?"


def test_handler_that_was_not_imported_raises_when_called():
    with pytest.raises(HandlerError, match="was not imported"):
        unimported_handler("shop:f").call({})


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ("import gone_for_good", "module", "it needs module `gone_for_good`, which is missing"),
        ("1 / 0", "module", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "module", "SystemExit: 3"),
        ("def f(:", "module", "SyntaxError"),
        ("g = 1", "attribute", "has no function `f`"),
        ("f = 1", "callable", "of type `int`, not a function"),
        ("def __getattr__(name): 1 / 0", "attribute", "raises ZeroDivisionError"),
    ],
)
def test_error_says_why_a_module_cannot_be_used(folder, source, kind, says):
    (folder / "broken_module.py").write_text(source)
    with pytest.raises(HandlerError, match=says) as caught:
        import_handler("broken_module:f")
    assert caught.value.kind == kind


def test_import_error_shows_the_file_and_line_that_raised_it(folder):
    (folder / "raising_module.py").write_text("def g():\n    raise ValueError('no')\n\ng()\n")
    with pytest.raises(HandlerError, match=r"ValueError: no \(.*raising_module.py:2\)"):
        import_handler("raising_module:f")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import os\n\nNAME = os.environ['ABE_ROUTER_IS_NOT_SET']", 3),
        ("import json\n\ndef read():\n    return json.loads('{')\n\nread()", 4),
        ("from pathlib import Path\nPath('not-there.toml').read_text()", 2),
        ("import pydantic\n\nclass M(pydantic.BaseModel):\n    n: int\n\nM()", 6),
        ("def f(o):\n    return o[\n", 2),
        ("x = 1\nimport gone_for_good", 2),
    ],
)
def test_import_error_names_a_line_of_the_user_and_not_of_a_library(folder, source, line):
    (folder / "reading_module.py").write_text(source)
    with pytest.raises(HandlerError, match=rf" \({folder}/reading_module.py:{line}\)$"):
        import_handler("reading_module:f")


def test_import_error_of_an_installed_module_names_its_own_line(folder, monkeypatch):
    installed = folder / "site-packages"
    (installed / "installed_shop").mkdir(parents=True)
    (installed / "installed_shop" / "__init__.py").touch()
    (installed / "installed_shop" / "orders.py").write_text("import json\njson.loads('{')\n")
    monkeypatch.syspath_prepend(installed)
    with pytest.raises(HandlerError, match=r"installed_shop/orders.py:2\)$"):
        import_handler("installed_shop.orders:f")


def test_error_for_a_missing_module_names_the_python_that_lacks_it(folder):
    (folder / "needing_module.py").write_text("import gone_for_good")
    with pytest.raises(HandlerError) as caught:
        import_handler("needing_module:f")
    assert caught.value.hint == f"install it for this Python: {sys.executable}"


def test_error_for_a_package_in_src_says_how_to_install_it(folder):
    with pytest.raises(HandlerError) as caught:
        import_handler("warehouse_of_tests.orders:f")
    assert str(folder) in caught.value.hint
    assert sys.executable in caught.value.hint
    (folder / "src" / "warehouse_of_tests").mkdir(parents=True)
    with pytest.raises(HandlerError) as caught:
        import_handler("warehouse_of_tests.orders:f")
    assert caught.value.hint == "`src/warehouse_of_tests` exists: install it with `pip install -e .`"


def test_method_of_a_class_is_refused_unless_it_needs_no_object(folder):
    (folder / "class_module.py").write_text(
        "class Shop:\n"
        "    def charge(self, order): ...\n"
        "    @staticmethod\n"
        "    def record(order): ...\n"
        "    @classmethod\n"
        "    def note(cls, order): ...\n"
        "shop = Shop()\n"
    )
    with pytest.raises(HandlerError) as caught:
        import_handler("class_module:Shop.charge")
    assert (caught.value.kind, "class_module:object.charge" in caught.value.hint) == ("signature", True)
    for path in ("Shop.record", "Shop.note", "shop.charge"):
        assert import_handler(f"class_module:{path}").wants_message is False


@pytest.mark.parametrize("annotation", [Message, "Message", list[Message]], ids=str)
def test_handler_that_takes_the_message_first_is_refused(annotation):
    def handle(first, payload): ...

    handle.__annotations__ = {"first": annotation}
    with pytest.raises(HandlerError, match="takes the Message first"):
        handler_from(handle)


def test_error_suggests_a_similar_package_module_or_function(folder):
    (folder / "shop_of_tests").mkdir()
    (folder / "shop_of_tests" / "orders.py").write_text("def charge(payload): ...\n")
    (folder / "shop_of_tests" / "__init__.py").touch()
    hints = {}
    for path in ("shop_of_test.orders:charge", "shop_of_tests.order:charge", "shop_of_tests.orders:chrage"):
        with pytest.raises(HandlerError) as caught:
            import_handler(path)
        hints[path.partition(":")[0]] = caught.value.hint
    assert list(hints.values()) == [
        "did you mean `shop_of_tests`?",
        "did you mean `shop_of_tests.orders`?",
        "did you mean `charge`?",
    ]


def test_error_suggests_a_one_letter_name_in_another_case(folder):
    (folder / "short_module.py").write_text("def f(payload): ...\n")
    with pytest.raises(HandlerError) as caught:
        import_handler("short_module:F")
    assert caught.value.hint == "did you mean `f`?"


def test_module_that_failed_is_imported_again_after_its_fix(folder):
    module = folder / "mended_module.py"
    module.write_text("1 / 0")
    with pytest.raises(HandlerError):
        import_handler("mended_module:f")
    module.write_text("def f(payload):\n    return 'a longer text, for the cache goes by size and time'\n")
    assert import_handler("mended_module:f").call({})


def test_folders_are_put_first_on_the_import_path_without_duplicates(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", ["/x", str(tmp_path), "/y"])
    put_first_on_import_path([tmp_path / "a", tmp_path, tmp_path / "a"])
    assert sys.path == [str(tmp_path / "a"), str(tmp_path), "/x", "/y"]


def test_code_below_a_folder_lists_imported_files_except_installed_ones(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lib" / "site-packages").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "lib" / "site-packages")
    (tmp_path / "below_one.py").write_text("import below_two, below_installed")
    (tmp_path / "below_two.py").write_text("")
    (tmp_path / "below_three.py").write_text("")
    (tmp_path / "lib" / "site-packages" / "below_installed.py").write_text("")
    importlib.import_module("below_one")
    assert code_below(tmp_path) == {tmp_path / "below_one.py", tmp_path / "below_two.py"}
    for name in ("below_one", "below_two", "below_installed"):
        del sys.modules[name]


def test_exception_whose_text_raises_is_named_by_its_class(folder):
    source = "class Mute(Exception):\n    def __str__(self): raise ValueError('no')\n"
    (folder / "mute_module.py").write_text(source + "raise Mute\n")
    with pytest.raises(HandlerError, match="Mute: its text cannot be made"):
        import_handler("mute_module:f")
    (folder / "mute_attribute.py").write_text(source + "def __getattr__(name): raise Mute\n")
    with pytest.raises(HandlerError, match="raises Mute: its text cannot be made"):
        import_handler("mute_attribute:f")


def test_a_function_that_wraps_itself_is_refused():
    def circle(payload): ...

    circle.__wrapped__ = circle
    with pytest.raises(HandlerError, match="`x:y` cannot be a handler: ValueError: wrapper loop") as caught:
        handler_from(circle, "x:y")
    assert caught.value.kind == "callable"


def test_module_not_found_error_with_an_invalid_name_is_reported(folder):
    (folder / "nameless_module.py").write_text("raise ModuleNotFoundError(name=3)")
    with pytest.raises(HandlerError, match="cannot be imported"):
        import_handler("nameless_module:f")


async def test_keyboard_interrupt_during_an_import_propagates_only_in_the_main_thread(folder):
    (folder / "interrupting_module.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(HandlerError, match="KeyboardInterrupt"):
        await asyncio.to_thread(import_handler, "interrupting_module:f")
    with pytest.raises(KeyboardInterrupt):
        import_handler("interrupting_module:f")


@pytest.fixture
def two_folders(folder):
    """Yield a function that writes a module to one of two folders and puts that first on the import path."""

    def write(which, name, source):
        path = folder / which / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        put_first_on_import_path([folder / which])
        return path

    return write


@pytest.mark.parametrize("name", ["twin_module.py", "twin_folder/orders.py"])
def test_module_with_the_name_of_an_imported_one_from_another_folder_is_refused(two_folders, name):
    """A namespace package, which has no file itself, is compared too."""
    module = name.removesuffix(".py").replace("/", ".")
    first = two_folders("a", name, "def f(payload): return 'a'\n")
    assert import_handler(f"{module}:f").call(None) == "a"
    second = two_folders("b", name, "def f(payload): return 'b'\n")
    with pytest.raises(HandlerError, match=f"module `{module}` was already imported") as caught:
        import_handler(f"{module}:f")
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert (caught.value.kind, caught.value.hint) == ("module", "rename one of them")

    second.unlink()
    put_first_on_import_path([first.parent])
    assert import_handler(f"{module}:f").call(None) == "a"


def test_package_with_the_name_of_an_imported_one_from_another_folder_is_refused(two_folders):
    for which in ("a", "b"):
        two_folders(which, "twin_package/__init__.py", "")
        two_folders(which, "twin_package/orders.py", f"def f(payload): return '{which}'\n")
        if which == "a":
            assert import_handler("twin_package.orders:f").call(None) == "a"
    with pytest.raises(HandlerError, match=r"module `twin_package.orders` was already imported"):
        import_handler("twin_package.orders:f")


def test_copy_of_or_link_to_an_imported_module_is_accepted(two_folders, folder):
    """An installed package may be a copy."""
    source = "def f(payload): return 'a'\n"
    module = two_folders("a", "copied_module.py", source)
    assert import_handler("copied_module:f").call(None) == "a"
    two_folders("b", "copied_module.py", source)
    assert import_handler("copied_module:f").call(None) == "a"
    (folder / "link").symlink_to(module.parent)
    module.write_text(source + "\n")
    put_first_on_import_path([folder / "link"])
    assert import_handler("copied_module:f").call(None) == "a"


def test_module_created_by_the_program_is_used_unchanged(two_folders, monkeypatch):
    made = ModuleType("made_module")
    made.f = plain
    monkeypatch.setitem(sys.modules, "made_module", made)
    two_folders("a", "made_module.py", "def f(payload): ...\n")
    assert import_handler("made_module:f").call is plain


def test_module_whose_file_moved_is_not_imported_again(two_folders):
    first = two_folders("a", "moved_module.py", "def f(payload): return 'a'\n")
    import_handler("moved_module:f")
    first.unlink()
    two_folders("b", "moved_module.py", "def f(payload): return 'b'\n")
    assert import_handler("moved_module:f").call(None) == "a"


def test_module_file_is_looked_up_once_for_all_its_functions(two_folders, monkeypatch):
    source = "".join(f"def f{number}(payload): ...\n" for number in range(100))
    two_folders("a", "wide_module.py", source)
    looked, find = [], PathFinder.find_spec
    monkeypatch.setattr(PathFinder, "find_spec", lambda *args: looked.append(args) or find(*args))
    for number in range(100):
        import_handler(f"wide_module:f{number}")
    assert len(looked) <= 2


@pytest.fixture
def stock(folder):
    """Write a module that contains functions of other modules, as most modules do."""
    (folder / "stock_handlers.py").write_text("""
import os
from functools import partial, wraps
from logging import getLogger
from os import system
from subprocess import getoutput as output

log = getLogger("stock")
items = []

def charge(payload): ...

class Charger:
    def __call__(self, payload): ...
    def refund(self, payload): ...

@wraps(charge)
def wrapped(payload): ...

charger = Charger()
half = partial(charge)
run = partial(system)
""")
    yield "stock_handlers"
    sys.modules.pop("stock_handlers", None)


@pytest.mark.parametrize("name", ["system", "output", "run", "log.info", "items.append", "Charger.__call__"])
def test_function_that_an_allowed_module_only_contains_is_refused(stock, name):
    with pytest.raises(HandlerError) as caught:
        import_handler(f"{stock}:{name}", [f"{stock}.*", f"{stock}"])
    assert caught.value.kind == "forbidden"


@pytest.mark.parametrize("allow", [[], ["stock_*"]])
def test_handler_path_through_a_module_is_refused(stock, allow):
    with pytest.raises(HandlerError, match="leads to module `os`"):
        import_handler(f"{stock}:os.system", allow)


@pytest.mark.parametrize("name", ["charge", "charger", "charger.refund", "wrapped", "half"])
def test_function_that_an_allowed_module_defines_is_accepted(stock, name):
    assert import_handler(f"{stock}:{name}", [stock]).path == f"{stock}:{name}"
    assert import_handler(f"{stock}:{name}", [f"{stock}:*"]).path == f"{stock}:{name}"


def test_allow_pattern_without_wildcards_names_any_function(stock):
    assert import_handler(f"{stock}:system", [f"{stock}:system"]).path == f"{stock}:system"


def test_name_of_a_module_with_a_thousand_parts_is_refused():
    with pytest.raises(HandlerError) as caught:
        import_handler("a." * 1000 + "a:f")
    assert caught.value.kind == "path"
