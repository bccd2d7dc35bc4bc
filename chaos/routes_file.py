"""The routes under test, as a file."""

from __future__ import annotations

from dataclasses import dataclass

#: The keys of what is published, of the steps, and of what is emitted.
KEY, STEP, DONE = "chaos.work", "chaos.step", "chaos.done"
#: How long handlers may take, and a worker to end, in seconds.
TIMEOUT, DRAIN = 1.0, 5.0
#: How often handlers are tried: as often as they fail, and as time may run out while a worker stands still.
ATTEMPTS = 8
#: How often a message is handed out at most: far more often than workers die.
MAX_DELIVERIES = 100


@dataclass(frozen=True)
class RoutesFile:
    """A routes file; `lease` is in seconds, `extra_groups` are groups that nobody counts."""

    backend: str
    lease: float
    max_deliveries: int = MAX_DELIVERIES
    concurrency: int = 4
    extra_groups: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The file."""
        extra_groups = "".join(
            f"      {name}: {{handler: 'chaos.handler:ignore', start: latest}}\n"
            for name in self.extra_groups
        )
        return _TEXT.format(
            backend=self.backend,
            lease=f"{self.lease * 1000:.0f}ms",
            timeout=f"{TIMEOUT * 1000:.0f}ms",
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
