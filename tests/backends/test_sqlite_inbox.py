"""The way of requests to the thread, when the thread ends meanwhile."""

from __future__ import annotations

import os
import threading

from abe_router.backends.sqlite.inbox import Inbox, LogWatch
from tests.limits import HANG


def test_pipe_is_not_closed_while_a_put_wakes_the_thread(monkeypatch):
    """Its number may belong to another file after that, and the wake-up would be written there."""
    inbox, real_write = Inbox(LogWatch()), os.write
    inbox._is_waiting = True
    closing = threading.Thread(target=inbox.close)

    def write(fd, data):
        closing.start()
        closing.join(0.1)
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    assert inbox.put(None)
    closing.join(HANG)
    assert not closing.is_alive()


def test_closed_inbox_takes_nothing_and_returns_what_is_left():
    inbox = Inbox(LogWatch())
    requests = [object(), object()]
    inbox.put(None)
    inbox.put(requests)
    assert inbox.take() is None
    assert inbox.close() == requests
    assert not inbox.put(requests)
