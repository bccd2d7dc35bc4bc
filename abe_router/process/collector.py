"""The counts of all workers: each reports its own to the collector of its supervisor, which adds them up.

Counts are cumulative. A worker sends those that have changed once a second, and all of the rest as its last
message. A worker that is killed takes the counts of about a second with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from abe_router.observe.tally import ProcessCounts, RouteCounts, added
from abe_router.process.channel import ControlChannel, Counts

#: How often a worker sends its counts, and how often it looks whether the supervisor reads, in seconds.
EVERY, UNREAD_DELAY = 1.0, 0.05
#: How many counts and how many names one message holds, so that it takes less room than the channel has.
ROUTES_A_MESSAGE, NAMES_A_MESSAGE = 50, 100


class CountsReporter:
    """Sends the counts of a worker to its supervisor: those that have changed since it last did.

    `routes` and `process` return the counts of the worker.
    """

    def __init__(
        self,
        channel: ControlChannel,
        routes: Callable[[], Mapping[str, RouteCounts]],
        process: Callable[[], ProcessCounts],
    ) -> None:
        self._channel, self._routes, self._process = channel, routes, process
        self._sent: dict[str, RouteCounts] = {}
        self._names: tuple[str, ...] | None = None
        self._sent_process = ProcessCounts()

    async def run(self) -> None:
        """Send once a second, until cancelled.

        While the supervisor does not read, nothing is sent, so that the event loop is not blocked.
        """
        while True:
            for message in self._changes():
                while not self._channel.has_room:  # noqa: ASYNC110  a socket sets no event
                    await asyncio.sleep(UNREAD_DELAY)
                self._send(message)
            await asyncio.sleep(EVERY)

    def finish(self) -> None:
        """Send what has changed, as the last message of the worker."""
        for message in self._changes():
            self._send(message)

    def _changes(self) -> Iterator[Counts]:
        routes, process = self._routes(), self._process()
        names = tuple(routes)
        if self._names != names:
            for start in range(0, len(names) or 1, NAMES_A_MESSAGE):
                end = start + NAMES_A_MESSAGE
                yield Counts({}, process, names[start:end], more=end < len(names))
            self._names = names
            self._sent = {name: self._sent[name] for name in names if name in self._sent}
        elif process != self._sent_process:
            yield Counts({}, process)
        changed = [(name, counts) for name, counts in routes.items() if counts != self._sent.get(name)]
        for start in range(0, len(changed), ROUTES_A_MESSAGE):
            yield Counts(dict(changed[start : start + ROUTES_A_MESSAGE]), process)

    def _send(self, message: Counts) -> None:
        self._channel.send(message)
        self._sent_process = message.process
        self._sent.update(message.routes)


class Counted(Protocol):
    """A worker process, of which the collector asks only whether it has ended."""

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, and all of its messages were read."""


@dataclass
class _Reported:
    """What one worker has reported: its routes, those of them that have counts, and its own counts."""

    names: frozenset[str] = frozenset()
    #: The names that have come so far, of a list that is not complete.
    part: tuple[str, ...] = ()
    routes: dict[str, RouteCounts] = field(default_factory=dict)
    process: ProcessCounts = field(default_factory=ProcessCounts)


class Collector:
    """Adds up the counts of living workers and of those that have ended, so that no counter falls.

    A counter does not fall when a worker is killed, is replaced, or reloads a route. A route that no living
    worker has any more is forgotten; while no worker lives, all routes are kept.
    """

    def __init__(self) -> None:
        self._living: dict[Counted, _Reported] = {}
        self._retired: dict[str, RouteCounts] = {}
        self._retired_process = ProcessCounts()

    def record(self, worker: Counted, message: Counts) -> None:
        """Note what a worker has reported."""
        reported = self._living.setdefault(worker, _Reported())
        reported.process = message.process
        for name, counts in message.routes.items():
            before = reported.routes.get(name)
            if before is not None and before.since != counts.since:  # the route was removed, and added again
                self._retire(name, before)
            reported.routes[name] = counts
        if message.names is not None:
            reported.part += message.names
            if message.more:
                return
            reported.names, reported.part = frozenset(reported.part), ()
            for name in reported.routes.keys() - reported.names:
                self._retire(name, reported.routes.pop(name))
            self._forget_removed()

    def counts(self) -> Mapping[str, RouteCounts]:
        """Return the counts of each route of all workers since the start of the supervisor."""
        self._retire_ended()
        return added([self._retired, *(reported.routes for reported in self._living.values())])

    def process_counts(self) -> ProcessCounts:
        """Return what all workers have met since the start of the supervisor."""
        self._retire_ended()
        return sum((each.process for each in self._living.values()), self._retired_process)

    def _retire_ended(self) -> None:
        ended = [worker for worker in self._living if worker.has_ended]
        for worker in ended:
            reported = self._living.pop(worker)
            self._retired_process += reported.process.retired()
            for name, counts in reported.routes.items():
                self._retire(name, counts)
        if ended:
            self._forget_removed()

    def _retire(self, name: str, counts: RouteCounts) -> None:
        counts = counts.retired()
        self._retired[name] = self._retired[name] + counts if name in self._retired else counts

    def _forget_removed(self) -> None:
        if not self._living:
            return
        names = frozenset().union(*(reported.names for reported in self._living.values()))
        self._retired = {name: counts for name, counts in self._retired.items() if name in names}
