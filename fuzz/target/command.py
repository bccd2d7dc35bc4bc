"""The command line: no arguments and no files of a user end in a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from unittest import mock

from abe_router.cli.errors import BUG
from abe_router.cli.root import run
from fuzz.corpus import ROOT, Corpus
from fuzz.grammar import json_value
from fuzz.mutate import mutate_bytes
from fuzz.target.target import Input, Target, demand

#: Commands that end by themselves, with arguments of each kind.
_COMMANDS = (
    *(
        "check --no-import",
        "check --format json",
        "check --format github --no-import",
        "routes",
        "routes --json",
    ),
    *(
        "publish KEY PAYLOAD",
        "publish KEY PAYLOAD --id ID",
        "publish KEY PAYLOAD --header a=b",
        "explain KEY",
    ),
    *(
        "explain KEY PAYLOAD",
        "status",
        "status --json",
        "doctor",
        "dead list",
        "dead list ROUTE",
        "dead show ROUTE ID",
    ),
    *(
        "dead replay ROUTE --all",
        "dead purge ROUTE ID",
        "drop ROUTE",
        "plan FILE",
        "backends",
        "schema",
        "test",
    ),
    *("publish - --lines", "completion bash", "help", "--version", "nonsense"),
)
_WORDS = (
    "orders.created",
    "a",
    "",
    "a/b",
    "orders.created/billing",
    "-",
    "--",
    "-x",
    "*",
    "é",
    "\udcff",
    "1",
)


class CommandTarget(Target):
    """Runs commands in this process, on a mutated routes file and a SQLite file."""

    name = "command"
    about = "no arguments and no file end in a traceback; the exit code is a documented one"
    short = 60
    seconds = 4.0

    def open(self, folder: Path) -> None:
        """Put the example into the folder."""
        super().open(folder)
        shutil.copytree(ROOT / "schemas", folder / "schemas")
        shutil.copytree(ROOT / "examples", folder / "examples")
        os.chdir(folder)

    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return the arguments of a command, and a routes file, which is mutated now and then."""
        routes = corpus.routes[0]
        if random.random() < 0.3:
            routes = mutate_bytes(random, random.choice(corpus.routes), corpus.routes)
        places = {
            "KEY": lambda: random.choice(("orders.created", *_WORDS)),
            "PAYLOAD": lambda: random.choice((json.dumps(json_value(random)), *_WORDS)),
            "ROUTE": lambda: random.choice(("orders.created/billing", *_WORDS)),
            "ID": lambda: random.choice(("1", "-1", "9" * 30, *_WORDS)),
            "FILE": lambda: random.choice(("routes.yaml", ".", *_WORDS)),
        }
        words = random.choice(_COMMANDS).split()
        arguments = [places[word]() if word in places else word for word in words]
        if random.random() < 0.3:
            arguments.insert(random.randrange(len(arguments) + 1), random.choice(_WORDS))
        return [arguments, routes]

    def check(self, given: Input) -> None:
        """Run the command; demand a documented exit code and no traceback."""
        arguments, routes = given
        (self.folder / "routes.yaml").write_bytes(routes)
        output = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape", write_through=True)
        environment = {**os.environ, "ABE_ROUTER_BACKEND": "sqlite:///queue.db", "NO_COLOR": "1"}
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"key":"a","payload":1}\n\xff'))),
            redirect_stdout(output),
            redirect_stderr(output),
        ):
            code = run(arguments)
        output.flush()
        text = output.buffer.getvalue().decode(errors="replace")
        demand(code != BUG and "Traceback" not in text, f"exit code {code}: {text[-2000:]}")
        demand(code in (0, 1, 2, 69, 78, 130, 141), f"exit code {code}: {text[-2000:]}")
