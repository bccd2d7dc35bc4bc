"""Whether what a fresh backend finds is right."""

from __future__ import annotations

from collections.abc import Mapping

from abe_router.backend import Backend

from . import picture
from .picture import Comes, KeptDead, Picture, Untrue
from .story import Story

#: Where a story was cut, and what was wrong in the end.
Point = tuple[str, list[str]]


async def of_cut(backend: Backend, story: Story, *, in_one_step: bool) -> list[str]:
    """Return what is wrong after a cut; `in_one_step` is whether the backend takes one where none has to."""
    try:
        found = await picture.take(backend, overcounted=story.overcounted)
    except Untrue as untrue:
        return [str(untrue)]
    stages = (story.old, *story.between, story.new)
    if found in stages:
        return []
    if story.order:
        return _in_order(found, story)
    if story.whole or in_one_step or any(found.keys() != stage.keys() for stage in stages):
        return [f"neither the old nor the new: {found}"]
    return [
        f"{'/'.join(name)} has `{id}` where it never was: {places.get(id)}"
        for name, places in found.items()
        for id in {*places, *story.old[name]}
        if places.get(id) not in (story.old[name].get(id), story.new[name].get(id))
    ]


async def of_retelling(backend: Backend, story: Story) -> list[str]:
    """Return what is wrong once the story was told again to its end."""
    try:
        found = await picture.take(backend, repeat=story.repeat, overcounted=story.overcounted)
    except Untrue as untrue:
        return [str(untrue)]
    return [] if _uncounted(found) == _uncounted(story.new) else [f"not the new: {found}"]


def _in_order(found: Picture, story: Story) -> list[str]:
    wrong = []
    for name, places in found.items():
        new = [id for id in story.order if id in places]
        if new != list(story.order[: len(new)]) or places != {
            **story.old[name],
            **_only(story.new[name], new),
        }:
            wrong.append(f"{'/'.join(name)} has not the first few, but {len(new)} of them")
    return wrong


def _only(places: Mapping[str, Comes | KeptDead], ids: list[str]) -> dict[str, Comes | KeptDead]:
    return {id: places[id] for id in ids}


def _uncounted(found: Picture) -> Picture:
    """Return the picture without deliveries, which crashes add to."""
    return {
        name: {
            id: place._replace(deliveries=0) if isinstance(place, Comes) else place
            for id, place in places.items()
        }
        for name, places in found.items()
    }
