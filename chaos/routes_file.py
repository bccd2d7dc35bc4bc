"""The routes file of the router under test."""

from __future__ import annotations

from dataclasses import dataclass

#: The keys of published messages, of steps, and of emitted messages.
KEY, STEP, DONE = "chaos.work", "chaos.step", "chaos.done"
#: Timeout of handlers and drain time, in seconds.
TIMEOUT, DRAIN = 1.0, 5.0
#: Attempts per message: planned failures, plus timeouts that happen because a worker is frozen.
ATTEMPTS = 8
#: Limit of deliveries, far above the number of deaths of workers.
MAX_DELIVERIES = 100


@dataclass(frozen=True)
class RoutesFile:
    """A routes file; `lease` and `timeout` are in seconds. Messages of `extra_groups` are not counted."""

    backend: str
    lease: float
    max_deliveries: int = MAX_DELIVERIES
    timeout: float = TIMEOUT
    concurrency: int = 4
    extra_groups: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The content of the file."""
        extra_groups = "".join(
            f"      {name}: {{handler: 'chaos.handler:ignore', start: latest}}\n"
            for name in self.extra_groups
        )
        return _TEXT.format(
            backend=self.backend,
            lease=f"{self.lease * 1000:.0f}ms",
            timeout=f"{self.timeout * 1000:.0f}ms",
            drain=f"{DRAIN * 1000:.0f}ms",
            attempts=ATTEMPTS,
            max_deliveries=self.max_deliveries,
            concurrency=self.concurrency,
            extra_groups=extra_groups,
            key=KEY,
            step=STEP,
            done=DONE,
        )


_TEXT = """\
backend: {backend}
defaults:
  concurrency: {concurrency}
  lease: {lease}
  timeout: {timeout}
  drain: {drain}
  max_deliveries: {max_deliveries}
  retry: {{attempts: {attempts}, initial: 50ms, max: 200ms}}
routes:
  {key}:
    consumers:
      loop: {{handler: 'chaos.handler:work', emit: {done}}}
      thread: chaos.handler:work_in_thread
{extra_groups}  {step}:
    id: /n
    dedupe: 1h
    consumers:
      ordered: {{handler: 'chaos.handler:step', order_by: /ordering_key}}
  {done}:
    consumers:
      follow: chaos.handler:follow
"""
