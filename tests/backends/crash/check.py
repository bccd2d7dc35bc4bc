"""Checks of what a fresh backend finds after a cut, and after the scenario has run again."""

from __future__ import annotations

from collections.abc import Mapping

from abe_router.backend import Backend

from . import snapshot
from .scenario import Scenario
from .snapshot import Inconsistent, Pending, Snapshot, State

#: Where a scenario was cut, and what was wrong in the end.
Point = tuple[str, list[str]]


async def after_cut(backend: Backend, scenario: Scenario, *, in_one_step: bool) -> list[str]:
    """Return what is wrong after a cut.

    `in_one_step` is whether the backend takes one step also for a scenario that is not `atomic`.
    """
    try:
        found = await snapshot.take(backend, buckets=scenario.buckets, may_overcount=scenario.may_overcount)
    except Inconsistent as inconsistent:
        return [str(inconsistent)]
    stages = (scenario.before, *scenario.between, scenario.after)
    if found in stages:
        return []
    if scenario.order:
        return _in_order(found, scenario)
    if scenario.atomic or in_one_step or any(found.keys() != stage.keys() for stage in stages):
        return [f"neither before nor after: {found}"]
    return [
        f"{'/'.join(name)} has `{id}` in a wrong state: {states.get(id)}"
        for name, states in found.items()
        for id in {*states, *scenario.before[name]}
        if states.get(id) not in (scenario.before[name].get(id), scenario.after[name].get(id))
    ]


async def after_rerun(backend: Backend, scenario: Scenario) -> list[str]:
    """Return what is wrong once the scenario has run again to its end."""
    try:
        found = await snapshot.take(
            backend,
            buckets=scenario.buckets,
            may_repeat=scenario.may_repeat,
            may_overcount=scenario.may_overcount,
        )
    except Inconsistent as inconsistent:
        return [str(inconsistent)]
    return [] if _uncounted(found) == _uncounted(scenario.after) else [f"not as after: {found}"]


def _in_order(found: Snapshot, scenario: Scenario) -> list[str]:
    wrong = []
    for name, states in found.items():
        new = [id for id in scenario.order if id in states]
        if new != list(scenario.order[: len(new)]) or states != {
            **scenario.before[name],
            **_only(scenario.after[name], new),
        }:
            wrong.append(f"{'/'.join(name)} has not the first few, but {len(new)} of them")
    return wrong


def _only(states: Mapping[str, State], ids: list[str]) -> dict[str, State]:
    return {id: states[id] for id in ids}


def _uncounted(found: Snapshot) -> Snapshot:
    """Return the snapshot without counts of deliveries, which rise with each crash."""
    return {
        name: {
            id: state._replace(deliveries=0) if isinstance(state, Pending) else state
            for id, state in states.items()
        }
        for name, states in found.items()
    }
