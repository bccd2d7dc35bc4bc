"""All faults, in the order of the table."""

from chaos.fault import combined, handler, network, process, redis, reload, replicated, sqlite
from chaos.fault.fault import Fault

__all__ = ["FAULTS", "Fault"]

FAULTS: tuple[Fault, ...] = (
    *process.FAULTS,
    *reload.FAULTS,
    *handler.FAULTS,
    *sqlite.FAULTS,
    *redis.FAULTS,
    *replicated.FAULTS,
    *network.FAULTS,
    *combined.FAULTS,
)
