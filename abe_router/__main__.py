"""The entry point of `abe-router` and of `python -m abe_router`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

#: New objects from which on the garbage collector looks for cycles. A short command makes fewer, nearly all
#: by its imports: they stay until the end, and one look through them takes a twentieth of it.
_GC_THRESHOLD = 150_000


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; `args` are those of the process when None.

    What the imports made is frozen: the garbage collector looks through it again at the exit otherwise.
    """
    gc.set_threshold(_GC_THRESHOLD)
    from abe_router.cli.root import run

    open_standard_streams()
    gc.freeze()
    sys.exit(run(args))


def open_standard_streams() -> None:
    """Replace each standard stream that the caller has closed by /dev/null.

    Otherwise the next file that is opened gets the number of the stream: a database, or a socket of the event
    loop. What is written to the stream would then go there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is that of the stream
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
