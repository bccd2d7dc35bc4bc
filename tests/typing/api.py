"""The public API as a user's type checker sees it; checked by `make check`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, TypedDict

from abe_router import (
    AsyncLoopConsumer,
    BackendUnavailable,
    ConfigError,
    Duplicate,
    HandlerFunction,
    Message,
    PayloadInvalid,
    QueueBackend,
    Reject,
    Retry,
    RetryPolicy,
    Router,
    load_backend,
)


class Order(TypedDict):
    id: str
    total: float


async def handle(payload: dict[str, object]) -> None:
    if "id" not in payload:
        raise Reject("no id")


def handle_plainly(payload: dict[str, Any]) -> int:
    return len(payload)


async def handle_with_message(payload: Any, message: Message) -> None:
    if message.attempt > 1:
        raise Retry("later", after=30.0)
    _: str = message.headers.get("trace", message.key)


async def handle_order(order: Order) -> float:
    return order["total"]


async def handle_three(payload: Any, message: Message, more: int) -> None: ...


class Counter:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, payload: Any) -> None:
        self.count += 1

    def note(self, payload: Any) -> None:
        self.count += 1


HANDLERS: list[HandlerFunction] = [
    handle,
    handle_plainly,
    handle_with_message,
    handle_order,
    Counter(),
    Counter().note,
    partial(handle_three, more=1),
    lambda payload: payload["id"],
]


class Careful(AsyncLoopConsumer):
    async def handler(self, payload: Any, message: Message) -> Any:
        try:
            return await super().handler(payload, message)
        except KeyError as error:
            raise Reject(str(error)) from error


class Plain:
    """A provider as Abstract Backend wants it."""

    async def publish(self, key: str, payload: dict[str, Any]) -> None: ...

    async def consume(self, *, group: str | None = None) -> AsyncIterator[dict[str, Any]]:
        yield {}


async def guide() -> None:
    backend: QueueBackend = load_backend()
    message: Message = await backend.publish("orders.created", {"order_id": "A-123", "total": 42.0})
    async with AsyncLoopConsumer(
        backend, group="billing", key="orders.*", retry=RetryPolicy(attempts=3)
    ) as consumer:
        await consumer.run(handle)
        await consumer.run(handle_three)  # type: ignore[arg-type]
        await consumer.shutdown()
    async for payload in backend.consume(group=message.id):
        print(payload)
    await Careful(Plain()).run(handle_with_message)
    AsyncLoopConsumer("redis")  # type: ignore[arg-type]


async def embed() -> None:
    try:
        async with Router.from_file("routes.yaml", consume=False) as router:
            message = await router.publish("orders.created", {"total": 5}, headers={"trace": "t"})
            _: str = message.id
            if isinstance(message, Duplicate):
                await router.backend.publish(message.key, message.payload, id=message.id, window=60.0)
            await router.backend.status()
    except ConfigError as error:
        places = [(fault.path, fault.line, fault.hint) for fault in error.diagnostics]
        print(places)
    except PayloadInvalid as error:
        print([violation.pointer for violation in error.violations])
    except BackendUnavailable as error:
        print(error)
