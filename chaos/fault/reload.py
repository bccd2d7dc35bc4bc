"""What happens to the routes file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from chaos.fault.fault import Fault
from chaos.routes_file import RoutesFile
from chaos.testbed import LONG, Setup, Testbed, load_factor

#: How long workers may take to follow the last edit, in seconds.
RELOAD_LIMIT = 3.0
#: What a file may hold that changes nothing; the routes in force stand in for `{text}`.
FAULTY = (
    "",
    "routes: [",
    "{text}surprise: 1\n",
    "routes:\n  chaos.work:\n    consumers: {{loop: 'chaos.handler:nothing'}}\n",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nroutes: {{}}\nd: *c\n",
    "\0",
)


class Editor:
    """Changes the routes file in every way in which files are changed."""

    def __init__(self, testbed: Testbed) -> None:
        self._stage, self._path, self._rng = testbed, testbed.routes, testbed.rng
        self._number = 0

    async def write(self, text: str) -> None:
        """Write it, in one of the ways."""
        self._number += 1
        ways = [self._replace, self._truncate, self._in_halves, self._recreate, self._swap]
        await self._rng.choice(ways)(text)

    async def last(self, routes_file: RoutesFile) -> None:
        """Write a file that all must follow, and wait until they do."""
        edited_at, limit = time.time(), RELOAD_LIMIT * load_factor() + self._stage.longest_block
        await self._replace(routes_file.text)
        revision = (await self._stage.ask("status"))["revision"]
        while any(found != revision for _, found in self._last_reloads()):
            if time.time() > edited_at + limit:
                self._stage.violations.append(f"the last edit is not in force after {limit:g} s")
                return
            await asyncio.sleep(0.1)
        self._stage.recoveries.append(max([0.0, *(at - edited_at for at, _ in self._last_reloads())]))

    def _last_reloads(self) -> list[tuple[float, str]]:
        return [worker.last_reload() for worker in self._stage.workers.running if worker.is_up]

    async def _replace(self, text: str) -> None:
        """Atomically, as most editors do."""
        new = self._path.with_name("new")
        new.write_text(text)
        new.replace(self._path)

    async def _truncate(self, text: str) -> None:
        """In place: empty for a moment."""
        self._path.write_text(text)

    async def _in_halves(self, text: str) -> None:
        """In place, so slowly that the half is seen."""
        with self._path.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            await asyncio.sleep(self._rng.uniform(0.0, 0.3))
            file.write(text[len(text) // 2 :])

    async def _recreate(self, text: str) -> None:
        """Delete it, and after a while write it anew."""
        self._path.unlink()
        await asyncio.sleep(self._rng.uniform(0.0, 0.3))
        self._path.write_text(text)

    async def _swap(self, text: str) -> None:
        """As Kubernetes mounts it: a link through a link to a folder, and the second one is replaced."""
        folder = self._path.parent
        version = folder / f"..version-{self._number}"
        version.mkdir()
        (version / self._path.name).write_text(text)
        _link(folder / "..data", version)
        _link(self._path, Path("..data") / self._path.name)


async def edit(testbed: Testbed, editor: Editor) -> bool:
    """Edit the file, well or badly."""
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
    """Edit the file many times a second."""
    editor = Editor(testbed)
    async for _ in testbed.moments(0.0, 0.2):
        testbed.count += await edit(testbed, editor)
    await editor.last(testbed.routes_file)


def _link(path: Path, target: Path) -> None:
    new = path.with_name("new-link")
    new.symlink_to(target)
    new.replace(path)


FAULTS = (Fault("reload", "a storm of edits, good and bad", storm, setup=Setup(lease=LONG)),)
