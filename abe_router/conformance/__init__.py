"""What a provider must do, as tests: subclass `BackendConformance`, name a URL, and run pytest.

    class TestMyBackend(BackendConformance):
        url = "my://localhost:1234"

Or run `pytest --abe-backend my://localhost:1234`. Tests of what the provider's features do not declare are
skipped. The docstring of a test says what a bug does that the test finds: it loses messages, or duplicates,
reorders, delays or blocks them.
"""

from abe_router.conformance.cancel import CancelTests
from abe_router.conformance.dead_letter import DeadLetterTests
from abe_router.conformance.dedupe import DedupeTests
from abe_router.conformance.delay import DelayTests
from abe_router.conformance.delivery import DeliveryTests
from abe_router.conformance.emit import EmitTests
from abe_router.conformance.exclusive import ExclusiveTests
from abe_router.conformance.fault import FaultTests
from abe_router.conformance.fencing import FencingTests
from abe_router.conformance.group import GroupTests
from abe_router.conformance.growth import GrowthTests
from abe_router.conformance.key_value import KeyValueTests
from abe_router.conformance.lease import LeaseTests
from abe_router.conformance.lifecycle import LifecycleTests
from abe_router.conformance.order import OrderTests
from abe_router.conformance.pattern import PatternTests
from abe_router.conformance.payload import PayloadTests
from abe_router.conformance.peek import PeekTests
from abe_router.conformance.process import ProcessTests
from abe_router.conformance.rate import RateTests
from abe_router.conformance.renewal import RenewalTests
from abe_router.conformance.replay import ReplayTests
from abe_router.conformance.retention import RetentionTests
from abe_router.conformance.settle import SettleTests
from abe_router.conformance.status import StatusTests

__all__ = ["BackendConformance"]


class BackendConformance(
    DeliveryTests,
    LeaseTests,
    RenewalTests,
    FencingTests,
    SettleTests,
    EmitTests,
    LifecycleTests,
    CancelTests,
    FaultTests,
    PayloadTests,
    GroupTests,
    PatternTests,
    OrderTests,
    ExclusiveTests,
    DedupeTests,
    DelayTests,
    DeadLetterTests,
    ReplayTests,
    RateTests,
    RetentionTests,
    StatusTests,
    PeekTests,
    KeyValueTests,
    GrowthTests,
    ProcessTests,
):
    """Every test, for one provider; `Suite` says what a subclass may set."""
