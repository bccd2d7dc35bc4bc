"""Threads for plain handlers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from abe_router.runtime.threads import Threads
from tests.limits import HANG


def test_calls_run_in_parallel_up_to_the_limit():
    threads, barrier, names = Threads(3), threading.Barrier(3, timeout=HANG), set()

    def call():
        names.add(threading.current_thread().name)
        barrier.wait()

    done, _ = wait([threads.submit(call) for _ in range(30)], timeout=HANG)
    assert len(done) == 30
    assert not any(future.exception() for future in done)
    assert names == {"handler-1", "handler-2", "handler-3"}
    threads.shutdown()


def test_an_idle_thread_is_reused():
    threads = Threads(10)
    for number in range(5):
        assert threads.submit(lambda a, *, b: (a, b), number, b=1).result(5) == (number, 1)
        while not threads._idle._value:
            pass
    assert threads._made == 1
    threads.shutdown()


def test_thread_of_an_abandoned_call_is_replaced_and_ends_when_the_call_returns():
    threads, go, began = Threads(1), threading.Event(), threading.Semaphore(0)
    hanging = [threads.submit(lambda: (began.release(), go.wait(HANG), threading.current_thread()))]
    for _ in range(3):
        assert began.acquire(timeout=HANG)
        assert not hanging[-1].cancel()
        assert not hanging[-1].cancel()
        hanging.append(threads.submit(lambda: (began.release(), go.wait(HANG), threading.current_thread())))
    assert began.acquire(timeout=HANG)
    assert (threads._made, threads._abandoned) == (4, 3)
    go.set()
    ended = [future.result(5)[2] for future in hanging[:3]]
    for thread in ended:
        thread.join(HANG)
    assert sum(thread.is_alive() for thread in ended) <= 1
    assert (threads._made, threads._abandoned) == (1, 0)
    assert threads.submit(int).result(5) == 0
    threads.shutdown()


def test_calls_wait_when_too_many_never_returned(monkeypatch, caplog):
    monkeypatch.setattr("abe_router.runtime.threads.MAX_ABANDONED", 2)
    threads, go, began = Threads(1, "orders.created/billing"), threading.Event(), threading.Semaphore(0)
    for _ in range(3):
        future = threads.submit(lambda: (began.release(), go.wait(HANG)))
        assert began.acquire(timeout=HANG)
        future.cancel()
    waiting = threads.submit(int)
    assert not waiting.running()
    assert "orders.created/billing: 3 calls never returned: further ones wait" in caplog.text
    go.set()
    assert waiting.result(5) == 0
    threads.shutdown()


def test_call_that_waits_gets_a_thread_when_another_call_is_abandoned():
    threads, go, began = Threads(1), threading.Event(), threading.Event()
    hanging = threads.submit(lambda: (began.set(), go.wait(HANG)))
    assert began.wait(HANG)
    waiting = threads.submit(int)
    hanging.cancel()
    assert waiting.result(5) == 0
    go.set()
    threads.shutdown()


async def test_stop_iteration_becomes_an_error_that_asyncio_accepts():
    threads, loop = Threads(1), asyncio.get_running_loop()
    with pytest.raises(RuntimeError, match="it raised StopIteration") as caught:
        await asyncio.wait_for(loop.run_in_executor(threads, next, iter(())), HANG)
    assert isinstance(caught.value.__cause__, StopIteration)
    threads.shutdown()


def test_a_call_without_a_thread_is_refused_and_not_made_later(monkeypatch):
    threads, made = Threads(2), []

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(made.append, 1)
    threads.submit(made.append, 2).result(5)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        done, _ = wait([threads.submit(made.append, number) for number in (3, 4)], timeout=HANG)
    assert (len(done), made) == (2, [2, 3, 4])
    threads.shutdown()


def test_an_error_of_a_call_is_raised_to_its_caller():
    threads = Threads(1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(5)
    assert threads.submit(int).result(5) == 0
    threads.shutdown()


def test_a_shutdown_cancels_waiting_calls_and_refuses_new_ones():
    threads, begun, go = Threads(1), threading.Event(), threading.Event()
    running = threads.submit(lambda: (begun.set(), go.wait(HANG)))
    begun.wait(HANG)
    waiting = threads.submit(int)
    threads.shutdown(cancel_futures=True)
    threads.shutdown(cancel_futures=True)
    assert waiting.cancelled()
    go.set()
    assert running.result(5)
    with pytest.raises(RuntimeError):
        threads.submit(int)


def test_a_call_that_never_returns_does_not_delay_the_exit():
    code = (
        "import threading; from abe_router.runtime.threads import Threads; began = threading.Event()\n"
        "Threads(1).submit(lambda: (began.set(), threading.Event().wait()))\nbegan.wait()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
