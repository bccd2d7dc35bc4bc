"""The entry point of `abe-router` and of `python -m abe_router`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from abe_router.cli.root import run


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; `args` are those of the process when None."""
    sys.exit(run(args))


if __name__ == "__main__":
    main()
