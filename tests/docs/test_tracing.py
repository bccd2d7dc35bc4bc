"""docs/tracing.md: its program sets a provider that a router uses, and its options are those of the file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import yaml

from abe_router.config.language.model import TraceModel

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()


def test_handlers_of_the_page_are_traced(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "handlers.py").write_text(f"{program}\ndef charge(order):\n    pass\n")
    (tmp_path / "routes.yaml").write_text(
        "backend: sqlite:///queue.db\n"
        "trace: {ratio: 1}\nroutes:\n  orders.created: {consumers: {billing: 'handlers:charge'}}\n"
    )

    def run(*arguments: str) -> str:
        command = (sys.executable, "-m", "abe_router", *arguments)
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            check=True,
            timeout=60,
            stdout=-1,
            text=True,
        ).stdout

    run("publish", "orders.created", "1")
    said = run("serve", "--once")
    assert '"name": "process orders.created"' in said
    assert '"messaging.consumer.group.name": "billing"' in said


def test_options_of_the_page_are_those_of_the_file() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    options = yaml.safe_load(block)["trace"]
    assert msgspec.to_builtins(msgspec.convert(options, TraceModel)) == options
    assert options.keys() == set(TraceModel.__struct_fields__)
