"""BullMQ on Redis: prepares the payloads and runs `bullmq.cjs` in their environment of Node.js."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from bench.environment import node_modules_of
from bench.spec import Spec


def main() -> None:
    """Write the payloads and their schema to the folder of the run, and become Node.js."""
    spec, node = Spec.received(), shutil.which("node")
    assert node is not None
    payloads = {"values": spec.payloads.values, "schema": spec.payloads.schema, "batch": spec.batch}
    (spec.path / "payloads.json").write_text(json.dumps(payloads))
    program = str(Path(__file__).with_suffix(".cjs"))
    environment = {**os.environ, "NODE_PATH": str(node_modules_of("bullmq")), "NODE_ENV": "production"}
    os.execve(node, [node, program, *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
