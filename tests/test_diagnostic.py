from __future__ import annotations

import os
from pathlib import Path

import pytest

from abe_router.diagnostic import Diagnostic, Severity, SourceText, render_all, render_github
from abe_router.diagnostic import render_text as render_source
from abe_router.text import counted


def fault(line=1, column=1, width=1, **more):
    given = {
        "path": Path("routes.yaml"),
        "code": "R101",
        "severity": Severity.ERROR,
        "message": "unknown option `consumer`",
        **more,
    }
    return Diagnostic(line=line, column=column, width=width, **given)


def render_text(diagnostic, source, **options):
    return render_source(diagnostic, SourceText(source), **options)


def carets(text):
    """Return the rendered source line and the line below it."""
    _, _, _, source, below, *_ = text.splitlines()
    return source, below


def test_a_fault_is_shown_with_its_line_carets_label_and_hint():
    source = "routes:\n  k:\n    consumer: {}\n"
    text = render_text(fault(3, 5, 8, label="not known here", hint="did you mean `consumers`?"), source)
    assert text == (
        "error[R101]: unknown option `consumer`\n"
        " --> routes.yaml:3:5\n"
        "  |\n"
        "3 |     consumer: {}\n"
        "  |     ^^^^^^^^ not known here\n"
        "\n"
        "hint: did you mean `consumers`?\n"
    )


def test_the_gutter_is_as_wide_as_the_line_number():
    text = render_text(fault(120, 1), "\n" * 119 + "x\n")
    assert text.splitlines()[1:4] == ["   --> routes.yaml:120:1", "    |", "120 | x"]


def test_fault_without_its_source_shows_its_position():
    assert render_text(fault(7, 2), None) == "error[R101]: unknown option `consumer`\n --> routes.yaml:7:2\n"
    assert render_text(fault(7, 2), "one line") == render_text(fault(7, 2), None)


def test_carets_stand_below_wide_and_combining_characters_and_tabs():
    assert carets(render_text(fault(1, 4, 2), "日本: xy"))[1] == "  |      ^^"
    assert carets(render_text(fault(1, 1, 2), "日本"))[1] == "  | ^^^^"
    assert carets(render_text(fault(1, 4, 1), "e\u0301: x"))[1] == "  |   ^"
    assert carets(render_text(fault(1, 2, 1), "\tx")) == ("1 |  x", "  |  ^")


def test_long_line_is_shortened_around_the_fault():
    source, below = carets(render_text(fault(1, 501, 3), "a" * 500 + "XYZ" + "b" * 500))
    assert len(source) < 140
    start = below.index("^")
    assert source[start : start + below.count("^")] == "XYZ"
    assert source[4] == source[-1] == "…"


def test_carets_end_with_the_shortened_line():
    source, below = carets(render_text(fault(1, 1, 5000), "a" * 5000))
    assert len(below) <= len(source)


@pytest.mark.parametrize(
    "line",
    ["backend: redis://user:pass@host/0", "url: a://user:p@ss@host", "  - x://:pass@h y://user:pass@h"],
)
def test_credentials_in_a_line_are_masked_without_changing_its_length(line):
    source, _ = carets(render_text(fault(), line))
    assert "pass" not in source
    assert "p@ss" not in source
    assert len(source) == len("1 | " + line)


def test_control_characters_of_a_file_are_escaped():
    text = render_text(fault(message="bad \x1b[31m", hint="\x07", label="\x9b"), "a\x1b[2Jb\u202e")
    assert text.replace("\n", "").isprintable()


def test_name_of_a_file_forges_no_line_and_no_workflow_command():
    given = fault(path=Path("x\n::add-mask::pwn\n\x1b[2J.json"), message="\x1b[2J")
    text = render_all([given])
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("::") for line in text.splitlines())
    assert render_github(given).isprintable()


@pytest.mark.parametrize(
    "line",
    [
        "backend: redis://h/0?password=S3CRET&db=1",
        "backend: rediss://h/?ssl_password=S3CRET",
        "backend: redis://u:S3CRET?S3CRET@h",
        'backend: "redis://u:S3 CRET@h"',
        "backend: x://h?Auth-Token=S3CRET",
    ],
)
def test_no_form_of_a_password_is_shown(line):
    source, _ = carets(render_text(fault(), line))
    assert "S3" not in source
    assert "CRET" not in source
    assert len(source) == len("1 | " + line)


def test_color_only_adds_escape_codes():
    plain = render_text(fault(hint="h", label="l"), "x")
    colored = render_text(fault(hint="h", label="l"), "x", color=True)
    assert "\033" not in plain
    assert colored != plain
    for code in ("\033[0m", "\033[1m", "\033[1;31m", "\033[1;34m"):
        colored = colored.replace(code, "")
    assert colored == plain


def test_faults_are_sorted_by_position_and_counted(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_text("one\ntwo\n")
    warning = fault(2, 1, path=path, severity=Severity.WARNING, code="W101", message="later")
    text = render_all([warning, fault(1, 1, path=path)])
    assert text.index("unknown option") < text.index("later")
    assert text.endswith("\n1 error, 1 warning")
    assert "2 | two" in text
    assert render_all([]) == ""


def test_pipe_instead_of_a_file_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "-->" in render_all([fault(path=tmp_path / "pipe")])


def test_github_annotation_is_one_escaped_line():
    text = render_github(fault(3, 5, 8, message="100%\n::error::", hint="h", path=Path("a:b,c%.yaml")))
    assert text == (
        "::error file=a%3Ab%2Cc%25.yaml,line=3,col=5,endColumn=13,title=R101::100%25%0A::error::. hint: h"
    )


def test_fault_as_json_has_plain_values():
    assert fault(3, 5, 8, hint="h").to_json() == {
        "path": "routes.yaml",
        "line": 3,
        "column": 5,
        "width": 8,
        "code": "R101",
        "severity": "error",
        "message": "unknown option `consumer`",
        "label": "",
        "hint": "h",
    }


def test_count_of_one_has_a_singular_noun():
    assert [counted(n, "route") for n in (0, 1, 2, 1200)] == [
        "0 routes",
        "1 route",
        "2 routes",
        "1,200 routes",
    ]


def test_name_of_a_file_that_is_not_utf8_is_escaped_in_json():
    found = fault(path=Path(os.fsdecode(b"caf\xe9")), message="no file `\udcff`").to_json()
    assert (found["path"], found["message"]) == (r"caf\udce9", r"no file `\udcff`")
