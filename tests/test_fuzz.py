"""Tests of `python -m fuzz`: each target accepts the code, finds planted bugs, and repeats a case."""

from __future__ import annotations

import os
import random
from functools import partial

import pytest

from abe_router.errors import PayloadMalformed
from abe_router.messages.message import decode
from fuzz.__main__ import main
from fuzz.child import make
from fuzz.corpus import Corpus
from fuzz.minimise import minimise
from fuzz.target import TARGETS, config, pattern, payload, row, schema, text
from fuzz.target.target import Target

# Python from 3.12 on warns when a process with threads forks; tests may have left some.
pytestmark = [pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"), pytest.mark.timeout(180)]
CORPUS = Corpus.read()


class Crashing(Target):
    """Ends its process, hangs, or fails, as the input says."""

    name, about = "crash", ""

    def make(self, random, corpus):
        return ["exit", "raise", "memory", "log"][random.randrange(4)]

    def check(self, given):
        if given == "exit":
            os._exit(3)
        raise KeyError(given)


def run(capsys, *arguments: str) -> str:
    """Run the command with seed 1, which must find something; return what it prints."""
    with pytest.raises(SystemExit) as ended:
        main(["--seed", "1", "--jobs", "1", *arguments])
    assert ended.value.code == 1
    return capsys.readouterr().out


def test_a_seed_and_a_number_make_the_same_input():
    for target in TARGETS:
        inputs = [make(target, 5, case, CORPUS) for case in range(20)]
        assert inputs == [make(target, 5, case, CORPUS) for case in range(20)]
        assert len({repr(each) for each in inputs}) > 5


def fail(_: object) -> None:
    raise UnicodeDecodeError("utf-8", b"", 0, 1, "invalid start byte")


#: For each target, a function that it checks, and a mistake in it.
BUGS = {
    "pattern": (pattern, "matches", lambda pattern, key: pattern == key or "*" in pattern),
    "payload": (payload, "decode", lambda body: decode(body.replace(b"1", b"2"))),
    "text": (text, "parse_duration", lambda text: float(text[:-1])),
    "config": (config, "render_all", lambda faults, color: "".join(f.message + "\x1b" for f in faults)),
    "schema": (schema, "find", lambda payload, pointer: payload[pointer]),
    "row": (row, "list_dead_letters", fail),
}


@pytest.mark.parametrize("name", BUGS)
def test_target_finds_a_planted_bug_and_prints_how_to_repeat_it(name, monkeypatch, capsys):
    monkeypatch.setattr(*BUGS[name])
    monkeypatch.setattr("fuzz.child.minimise", partial(minimise, seconds=0.3))
    (target,) = [target for target in TARGETS if target.name == name]
    monkeypatch.setattr(type(target), "short", min(target.short, 6 if name == "row" else 60))
    output = run(capsys, "--target", name)
    assert f"FAILED python -m fuzz --seed 1 --target {name} --case " in output
    assert "input: " in output


def test_case_that_ends_the_process_is_reported_with_its_input(monkeypatch, capsys):
    monkeypatch.setattr("fuzz.__main__.TARGETS", [Crashing()])
    case = next(case for case in range(50) if make(Crashing(), 1, case, CORPUS) == "exit")
    output = run(capsys, "--case", str(case))
    assert "the process ended with code 3" in output
    assert "input: 'exit'" in output


def test_input_is_made_as_small_as_possible():
    def refused(body: bytes) -> bool:
        try:
            decode(body)
        except PayloadMalformed:
            return True
        return False

    assert minimise(b'{"a": [1, 2, NaN]}', lambda body: b"NaN" in body and refused(body)) == b"NaN"
    given = [{"a": [1, {"b": "xyz"}], "c": 5}, {"d": 1}]
    assert minimise(given, lambda value: "y" in repr(value)) == [["y"]]
    assert minimise([random.random()], lambda value: len(value) == 1) == [0]
