"""A crash at any point of a transition loses and doubles nothing, and the transition may be tried again.

One point in five is cut, in every transition; ABE_ROUTER_LONGER=1 cuts at all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from abe_router.testing import RedisServer

from .crash.scenario import SCENARIOS

pytestmark = [pytest.mark.timeout(300), pytest.mark.heavy(35)]
ROOT = Path(__file__).parents[2]
#: One point in so many is cut: an odd number, because the points before and after a step alternate.
EVERY = 1 if os.environ.get("ABE_ROUTER_LONGER") else 5
#: The scenarios in which servers are killed; each kill needs a restart.
KILLED = ("append of several batches", "ack with outputs", "delay", "dead letter", "replay", "drop")
NAMES = [scenario.name for scenario in SCENARIOS]
#: By run, its kind of crash, its scenarios, and how many points there are at least in all. Processes that use
#: a file are killed one after the other, so two runs share the scenarios.
KINDS = {
    "sqlite": ("sqlite", NAMES[::2], 500),
    "sqlite, other scenarios": ("sqlite", NAMES[1::2], 500),
    "redis": ("redis", NAMES, 450),
    "redis-cluster": ("redis-cluster", KILLED, 80),
    "redis-slots": ("redis-slots", ("ack with outputs", "dead letter", "replay"), 30),
    "redis-sentinel": ("redis-sentinel", KILLED, 80),
    "redis-server": ("redis-server", KILLED, 35),
}
#: Seeded bugs, each with the kind of crash and the scenario that find it.
BUGS = {
    "a dead letter in a commit of its own": (
        "sqlite",
        "dead letter",
        """
from abe_router.backends.sqlite import dead_letters
add = dead_letters.add
def add_apart(database, rows):
    add(database, rows)
    database.execute("COMMIT")
    database.execute("BEGIN IMMEDIATE")
dead_letters.add = add_apart
""",
    ),
    "acks in a commit of their own": (
        "sqlite",
        "ack with outputs",
        """
from abe_router.backends.sqlite import log
append = log.append
def append_apart(database, messages):
    database.execute("COMMIT")
    database.execute("BEGIN IMMEDIATE")
    append(database, messages)
log.append = append_apart
""",
    ),
    "a put that deletes and inserts in two commits": (
        "sqlite",
        "put",
        """
from abe_router.backends.sqlite import key_value
put = key_value.put
def put_apart(database, bucket, name, *rest):
    key_value.delete(database, bucket, name, None)
    database.execute("COMMIT")
    database.execute("BEGIN IMMEDIATE")
    return put(database, bucket, name, *rest)
key_value.put = put_apart
""",
    ),
    "a drop that cannot be finished": (
        "redis",
        "drop and subscribe again",
        """
from abe_router.backends.redis.registry import Registry
async def never(*_):
    return False
Registry.dropped = never
""",
    ),
    "outputs before the acks": (
        "redis",
        "ack with outputs",
        """
from abe_router.backend import ACKED
from abe_router.backends.redis.settlement import Settlement
settle = Settlement.settle
async def settle_in_two_steps(self, settlements):
    await self._node.appender.append([m for _, outcome in settlements for m in outcome.outputs])
    return await settle(self, [(delivery, ACKED) for delivery, _ in settlements])
Settlement.settle = settle_in_two_steps
""",
    ),
}


@pytest.fixture(scope="module")
def runs():
    """Start all runs at once, because most of their time they wait for leases to end."""
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    running = {name: start(kind, scenarios, every=EVERY) for name, (kind, scenarios, _) in KINDS.items()}
    running |= {bug: start(kind, (scenario,), code) for bug, (kind, scenario, code) in BUGS.items()}
    yield running
    for process in running.values():
        process.kill()
        process.wait()
        process.stdout.close()


def start(kind, scenarios, bug="", every=1):
    """Start a run in a process without threads, because it forks."""
    code = f"{bug}\nimport sys\nfrom tests.backends.crash.__main__ import main\nsys.exit(main())"
    options = [word for scenario in scenarios for word in ("--scenario", scenario)]
    command = [sys.executable, "-c", code, kind, "--json", "--every", str(every), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def points(process):
    """Return all points of a run, each with what was wrong."""
    out, _ = process.communicate()
    scenarios = [each for kind in json.loads(out).values() for each in kind.values()]
    return [point for scenario in scenarios for point in scenario]


@pytest.mark.parametrize("name", KINDS)
def test_crash_at_any_point_loses_and_duplicates_nothing(name, runs):
    found = points(runs[name])
    assert not [point for point in found if point[1]]
    assert len(found) >= KINDS[name][-1] / EVERY


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found_at_some_point(bug, runs):
    assert [point for point in points(runs[bug]) if point[1]]
