"""Faults of the routes file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from abe_router.config.building.loader import Loader
from chaos.fault.fault import Fault
from chaos.routes_file import RoutesFile
from chaos.testbed import LONG, Setup, Testbed

#: Longest time until workers run the last edit, in seconds.
RELOAD_LIMIT = 3.0
#: Files with errors, which must change nothing; `{text}` stands for the valid file.
FAULTY = (
    "",
    "routes: [",
    "{text}surprise: 1\n",
    "routes:\n  chaos.work:\n    consumers: {{loop: 'chaos.handler:nothing'}}\n",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nroutes: {{}}\nd: *c\n",
    "\0",
)


class Editor:
    """Changes the routes file in every way in which programs change files."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed, self._path, self._rng = testbed, testbed.routes, testbed.rng
        self._number = 0

    async def write(self, text: str) -> None:
        """Write the file in a random way."""
        self._number += 1
        ways = [self._replace, self._truncate, self._in_halves, self._recreate, self._swap]
        await self._rng.choice(ways)(text)

    async def last(self, routes_file: RoutesFile) -> None:
        """Write a valid file, and wait until all workers run it."""
        edited_at, limit = time.time(), RELOAD_LIMIT + self._testbed.longest_block
        control = self._testbed.control
        await self._replace(routes_file.text)
        # `status` would show the edit before, as long as the workers report that they rejected a later one.
        wanted = (await asyncio.to_thread(Loader(self._path, import_handlers=False).load)).revision
        while any(found != wanted for _, found in self._last_reloads()):
            if control.since(edited_at) > limit:
                running = ", ".join(found[:8] for _, found in self._last_reloads())
                said = f"the last edit, {wanted[:8]}, is not in force after {limit:g} s, but {running}"
                self._testbed.late.append(said)
                return
            await asyncio.sleep(0.1)
        reloads = [control.given(edited_at, at) for at, _ in self._last_reloads()]
        self._testbed.recoveries.append(max([0.0, *reloads]))

    def _last_reloads(self) -> list[tuple[float, str]]:
        return [worker.last_reload() for worker in self._testbed.workers.running if worker.is_up]

    async def _replace(self, text: str) -> None:
        """Replace the file atomically, as most editors do."""
        new = self._path.with_name("new")
        new.write_text(text)
        new.replace(self._path)

    async def _truncate(self, text: str) -> None:
        """Write in place: the file is empty for a moment."""
        self._path.write_text(text)

    async def _in_halves(self, text: str) -> None:
        """Write in place, with a delay in the middle."""
        with self._path.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            await asyncio.sleep(self._rng.uniform(0.0, 0.3))
            file.write(text[len(text) // 2 :])

    async def _recreate(self, text: str) -> None:
        """Delete the file, and write it again after a while."""
        self._path.unlink()
        await asyncio.sleep(self._rng.uniform(0.0, 0.3))
        self._path.write_text(text)

    async def _swap(self, text: str) -> None:
        """Swap a symbolic link to a folder, as Kubernetes does."""
        folder = self._path.parent
        version = folder / f"..version-{self._number}"
        version.mkdir()
        (version / self._path.name).write_text(text)
        _link(folder / "..data", version)
        _link(self._path, Path("..data") / self._path.name)


async def edit(testbed: Testbed, editor: Editor) -> bool:
    """Write a valid or an invalid file."""
    if testbed.rng.random() < 0.4:
        await editor.write(testbed.rng.choice(FAULTY).format(text=testbed.routes_file.text))
    else:
        extra_groups = tuple(name for name in ("guest", "visitor") if testbed.rng.random() < 0.5)
        await editor.write(
            replace(
                testbed.routes_file, concurrency=testbed.rng.choice((3, 4, 5)), extra_groups=extra_groups
            ).text
        )
    return True


async def storm(testbed: Testbed) -> None:
    """Edit the file many times per second."""
    editor = Editor(testbed)
    async for _ in testbed.moments(0.0, 0.2):
        if await edit(testbed, editor):
            testbed.count += 1
    await editor.last(testbed.routes_file)


def _link(path: Path, target: Path) -> None:
    new = path.with_name("new-link")
    new.symlink_to(target)
    new.replace(path)


FAULTS = (Fault("reload", "a storm of edits, good and bad", storm, setup=Setup(lease=LONG)),)
