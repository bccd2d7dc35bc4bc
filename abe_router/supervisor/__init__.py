"""Several worker processes as one: started, watched over, restarted, replaced one by one, and stopped."""

from abe_router.supervisor.cores import cores
from abe_router.supervisor.supervisor import Supervisor

__all__ = ["Supervisor", "cores"]
