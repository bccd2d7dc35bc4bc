"""Dead letters on each provider that keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from abe_router.backend import Backend, Dead, DeadLetter, Delivery, Reason
from abe_router.backends import make_backend
from abe_router.messages.message import new_message
from abe_router.testing import RedisServer

ROUTE = ("orders.created", "billing")
NAME = "/".join(ROUTE)
NO_STOCK = Reason("failed", "KeyError", "no stock", type="KeyError", frame="shop:charge")
NO_CARD = Reason("failed", "OSError", "no card", type="OSError", frame="shop:pay")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty backend that several processes can use; its prefix is the folder's name."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
async def shared(shared_url: str, tmp_path: Path) -> AsyncIterator[Callable[[], Backend]]:
    """Return a function that makes a client of the backend, as another process would."""
    made = []

    def make() -> Backend:
        made.append(make_backend(shared_url, prefix=f"{tmp_path.name}."))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def died(delivery: Delivery, reason: Reason, revision: str = "") -> tuple[Delivery, Dead]:
    """Return a settlement that makes a delivery a dead letter."""
    now = delivery.message.published_at
    return delivery, Dead(DeadLetter(NAME, delivery.message, reason, 1, 1, now, now, revision))


async def dead_letters_of(backend: Backend, *reasons: Reason, revision: str = "") -> list[str]:
    """Publish a message for each reason and make it a dead letter; return the ids of the messages."""
    messages = [new_message(ROUTE[0], b'{"id": %d}' % number) for number in range(len(reasons))]
    await backend.append(messages)
    subscription = await backend.subscribe(*ROUTE)
    left = {message.id: reason for message, reason in zip(messages, reasons, strict=True)}
    while left:
        found = await subscription.fetch(500, 5)
        await subscription.settle([died(each, left.pop(each.message.id), revision) for each in found])
    await subscription.close()
    return [message.id for message in messages]
