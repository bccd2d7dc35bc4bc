"""The ids that the memory provider keeps, against a model that looks at all that was ever accepted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import new_message

CALLS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.0, 0.5, 1.0, 4.0)),  # how much later
        st.lists(
            st.tuples(
                st.sampled_from(("a.b", "a.c")), st.sampled_from("xyz"), st.sampled_from((0.0, 1.0, 3.0))
            ),
            min_size=1,
            max_size=4,
        ),
    ),
    max_size=30,
)


@given(CALLS)
async def test_a_message_is_passed_over_if_one_was_accepted_whose_window_has_not_ended(calls):
    now, accepted, kept = 0.0, [], []
    backend = MemoryBackend(clock=lambda: now)
    for later, said in calls:
        now += later
        windowed = [(new_message(key, b"1", id=id), window) for key, id, window in said]
        expected = []
        for message, window in windowed:
            name = (message.key, message.id)
            if window and any(n == name and at <= now < until for n, at, until in accepted):
                expected.append(message)
                continue
            kept.append(message)
            if window:
                accepted.append((name, now, now + window))
        assert list(await backend.append_once(windowed)) == expected
        if any(window for _, window in windowed):
            assert len(backend._dedupe) == len({name for name, _, until in accepted if now < until})
    handle = await backend.subscribe("#", "all")
    assert [delivery.message.id for delivery in await handle.fetch(1_000, 0)] == [m.id for m in kept]
