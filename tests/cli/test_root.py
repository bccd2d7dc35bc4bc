"""What all commands share: help, exit codes, stdout and stderr, colours, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from abe_router.cli import output
from abe_router.cli.root import COMMANDS, root

from .conftest import Run, dead_letter

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
MARK = "<!-- The rest of this page is written by `ABE_ROUTER_REWRITE=1 pytest tests/cli/test_root.py`. -->\n"


def commands(command: click.Command = root, path: str = "abe-router") -> Iterator[tuple[str, click.Context]]:
    """Yield every command with its full name and a context of 100 columns."""
    context = click.Context(
        command,
        info_name=path,
        terminal_width=100,
        auto_envvar_prefix=path.upper().replace("-", "_").replace(" ", "_"),
        help_option_names=["-h", "--help"],
    )
    context.show_default = True
    yield path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")


def test_docs_page_shows_what_help_prints() -> None:
    helps = "".join(f"\n## `{path}`\n```text\n{context.get_help()}\n```\n" for path, context in commands())
    head, _, rest = PAGE.read_text().partition(MARK)
    if os.environ.get("ABE_ROUTER_REWRITE"):
        PAGE.write_text(head + MARK + helps)
        rest = helps
    assert rest == helps


@pytest.mark.parametrize("name", COMMANDS)
def test_command_list_shows_the_first_line_of_each_help(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.help is not None
    assert command.help.splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("path", [path for path, _ in commands() if path != "abe-router"])
def test_every_option_shows_its_environment_variable(path: str) -> None:
    context = dict(commands())[path]
    for parameter in context.command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert "env var: ABE_ROUTER_" in " ".join(parameter.get_help_record(context) or ())


@pytest.mark.parametrize("path", [p for p, c in commands() if not isinstance(c.command, click.Group)])
def test_every_help_has_examples(path: str) -> None:
    _, _, examples = dict(commands())[path].get_help().partition("\nExamples:\n")
    assert path in examples


#: Modules that `--help` must not import; each costs milliseconds.
HEAVY = {
    *("abe_router.errors", "abe_router.observe.logs", "abe_router.text", "asyncio", "importlib.metadata"),
    *("jsonschema_rs", "logging", "msgspec", "pydantic", "redis", "rich", "yaml"),
}
#: The most modules that `--help` imports, and the most of this package that `publish` imports.
OF_HELP, OF_PUBLISH = 110, 150


def imported(code: str) -> set[str]:
    """Return the names of the modules that a program imports besides those of an empty one."""
    program = (
        f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_few_modules_and_nothing_heavy() -> None:
    modules = imported("from abe_router.cli.root import run; run(['--help'])")
    assert modules & HEAVY == set()
    assert len(modules) < OF_HELP


def test_publish_imports_no_consumer_and_no_other_provider(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(f"backend: sqlite:///{tmp_path}/orders.db\nroutes: {{orders.created: }}\n")
    modules = imported(
        f"from abe_router.cli.root import run; run(['publish', '-c', '{routes}', 'orders.created', '1'])"
    )
    unwanted = ("rich", "pydantic", "abe_router.consumer", "abe_router.backends.abstract")
    assert {name for name in modules if name.startswith((*unwanted, "abe_router.backends.redis"))} == set()
    ours = [name for name in modules if name.startswith("abe_router")]
    assert "abe_router.backends.sqlite.backend" in ours
    assert len(ours) < OF_PUBLISH


def test_publish_ends_before_the_garbage_collector_looks_through_what_it_imported(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(f"backend: sqlite:///{tmp_path}/orders.db\nroutes: {{orders.created: }}\n")
    args = ["publish", "-c", str(routes), "orders.created", "1"]
    code = f"""
import gc, sys
sizes = []
gc.callbacks.append(lambda phase, info: sizes.append(len(sys.modules)) if phase == "start" else None)
from abe_router.__main__ import main
try:
    main({args})
finally:
    print(max(sizes, default=0), "abe_router.runtime.publish" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size, publishes = done.stderr.split()
    assert publishes == "True"
    assert int(size) < OF_HELP  # before `main` sets the threshold


def test_annotations_of_the_models_are_evaluated_where_they_stand() -> None:
    for name in ("model", "http_model", "tests_model"):
        assert not hasattr(import_module(f"abe_router.config.language.{name}"), "annotations"), name


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["chekc"], "no command `chekc`, did you mean `check`?", "see `abe-router --help`"),
        (
            ["check", "--fromat", "json"],
            "no such option '--fromat', did you mean '--format'?",
            "see `abe-router check --help`",
        ),
        (
            ["serve", "--worker", "2"],
            "no such option '--worker', did you mean '--workers'?",
            "see `abe-router serve --help`",
        ),
        (["replay"], "no command `replay`, did you mean `dead replay`?", "see `abe-router --help`"),
        (["dead", "list", "nonsense"], "is not KEY/GROUP", "see `abe-router dead list --help`"),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(run: Run, args: list[str], error: str, hint: str) -> None:
    done = run(*args)
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert lines[1] == f"hint: {hint}"


def test_faulty_file_exits_78_with_its_diagnostics(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text("routes: {orders.created: {consumer: {}}}")
    done = run("routes")
    assert (done.code, done.out) == (78, "")
    assert "routes.yaml:1:27" in done.err
    assert done.err.splitlines()[-1] == "error: routes.yaml cannot be used: 1 error"


def test_world_writable_file_is_refused_only_when_its_code_runs(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").chmod(0o666)
    assert run("routes").code == 0
    assert run("check").code == 78


def test_missing_file_exits_78(run: Run) -> None:
    done = run("routes", "missing.yaml")
    assert (done.code, done.out) == (78, "")
    assert "missing.yaml" in done.err


def test_bug_exits_70_and_shows_its_traceback_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abe_router.cli.routes.print_table", lambda *_, **__: 1 / 0)
    done = run("routes")
    assert done.code == 70
    assert done.err == (
        "error: ZeroDivisionError: division by zero\n"
        "hint: this is a bug in abe-router; set ABE_ROUTER_DEBUG=1 to show the traceback\n"
    )
    monkeypatch.setenv("ABE_ROUTER_DEBUG", "1")
    assert "Traceback" in run("routes").err


def test_closed_pipe_ends_the_command_silently(shop: Path) -> None:
    dead_letter(*({"id": n, "total": 0} for n in range(1500)))
    command = f"{sys.executable} -m abe_router dead list --limit 0 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("args", ["schema", "--help", "routes"])
def test_closed_pipe_exits_141(shop: Path, args: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "abe_router", args]
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_option_is_read_from_its_environment_variable(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "routes.yaml").rename("other.yaml")
    monkeypatch.setenv("ABE_ROUTER_CONFIG", "other.yaml")
    monkeypatch.setenv("ABE_ROUTER_ROUTES_JSON", "1")
    assert run("routes").json[0]["route"] == "orders.created/billing"


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_terminal_is_coloured_unless_the_environment_forbids_it(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], colored: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **env}.items():
        monkeypatch.setenv(name, value)
    assert output.wants_color(Terminal()) is colored  # type: ignore[arg-type]


def test_colour_can_be_forced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\033[" not in run("routes").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\033[1m" in run("routes").out


def test_row_in_a_pipe_is_one_line_of_any_length(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("a", "b"), [("x" * 500, "[bold]\x1b[2J\n")])
    assert capsys.readouterr().out.splitlines()[1] == "x" * 500 + "  " + r"[bold]\x1b[2J\n"


def test_json_is_exact_and_escapes_unprintable_characters(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": 10**30, "b": "x\u202e\x7f\U000e0001 ü"}
    output.print_json(value)
    text = capsys.readouterr().out
    assert text == '{\n  "a": 1000000000000000000000000000000,\n  "b": "x\\u202e\\u007f\\udb40\\udc01 ü"\n}\n'
    assert json.loads(text) == value


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert f"_ABE_ROUTER_COMPLETE={shell}_complete" in done.out


def test_bash_script_completes_commands(shop: Path) -> None:
    env = {
        **os.environ,
        "_ABE_ROUTER_COMPLETE": "bash_complete",
        "COMP_WORDS": "abe-router pu",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "abe_router"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "plain,publish\n"


def test_version_is_printed(run: Run) -> None:
    assert run("--version").out.startswith("abe-router ")


@pytest.mark.parametrize("group", [(), ("dead",)])
def test_group_without_a_command_prints_its_help_and_exits_2(run: Run, group: tuple[str, ...]) -> None:
    done = run(*group)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Usage: {' '.join(('abe-router', *group))} [OPTIONS] COMMAND [ARGS]...\n\n")


def test_short_help_option_works_on_every_command(run: Run) -> None:
    for path, _ in commands():
        args = path.split()[1:]
        assert run(*args, "-h").out == run(*args, "--help").out != ""


@pytest.mark.parametrize("args", [["routes"], ["check", "--no-import"], ["status"], ["plan", "routes.yaml"]])
def test_routes_file_is_given_before_or_after_the_command(run: Run, shop: Path, args: list[str]) -> None:
    expected = run(*args)
    assert expected.code == 0
    (shop / "routes.yaml").rename(shop / "other.yaml")
    if args[0] == "plan":
        args = ["plan", "other.yaml"]
    assert run(*args).code == 78
    assert run(*args, "-c", "other.yaml") == expected
    assert run("-c", "other.yaml", *args) == expected


def test_option_after_the_command_takes_precedence_over_others(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABE_ROUTER_CONFIG", "none.yaml")
    assert run("routes").code == 78
    assert run("-c", "routes.yaml", "routes").code == 0
    assert run("-c", "none.yaml", "routes", "-c", "routes.yaml").code == 0
    assert run("-c", "none.yaml", "routes", "routes.yaml").code == 0
    assert run("routes", "routes.yaml").code == 0
    done = run("routes", "routes.yaml", "-c", "routes.yaml")
    assert (done.code, done.err.splitlines()[0]) == (
        2,
        "error: give the routes file once: as ROUTES or with -c",
    )


def test_routes_file_is_found_in_a_parent_folder(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = shop / "src" / "shop"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert len(run("routes", "--json").json) == 3
    assert run("publish", "orders.created", '{"id": 1, "total": 5}').code == 0
    assert (shop / "shop.db").exists()
    (below / "routes.yaml").write_text("routes: {")
    assert "routes.yaml:1:" in run("routes").err


def test_routes_file_of_another_user_in_a_parent_folder_is_ignored(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "src").mkdir()
    monkeypatch.chdir(shop / "src")
    monkeypatch.setattr("os.getuid", lambda: (shop / "routes.yaml").stat().st_uid + 1)
    if (shop / "routes.yaml").stat().st_uid == 0:
        os.chown(shop / "routes.yaml", 12345, -1)
    done = run("routes")
    assert (done.code, "does not exist" in done.err) == (78, True)


def test_optional_argument_is_in_brackets(run: Run) -> None:
    assert run("dead", "list", "--help").out.startswith("Usage: abe-router dead list [OPTIONS] [KEY/GROUP]\n")


@pytest.mark.parametrize(
    ("command", "closed"),
    [
        *(("routes", closed) for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")),
        ("serve --once --workers 2", "<&- >&- 2>&-"),
        *(
            pytest.param("serve --once --workers 2", closed, marks=pytest.mark.long)
            for closed in ("<&-", ">&-", "2>&-")
        ),
    ],
)
def test_closed_standard_stream_is_replaced_by_dev_null(shop: Path, command: str, closed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m abe_router {command} {closed}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


def test_payload_from_closed_stdin_is_empty(shop: Path) -> None:
    command = ["/bin/sh", "-c", '"$0" -m abe_router publish orders.created <&-', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: stdin is empty, so there is no payload",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists on Linux only")
@pytest.mark.parametrize("command", ["routes", "schema", "--help"])
def test_full_disk_is_not_reported_as_a_bug(shop: Path, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "abe_router", command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    error = "error: cannot write the output: no space left on device\n"
    assert (done.returncode, done.stderr) == (1, error)
