"""Builds the cases of `tests`, and checks that their keys and routes exist in the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import nsmallest
from typing import Any

from msgspec import UNSET

from abe_router.config.language import tests_model
from abe_router.config.language.forms import plain
from abe_router.config.language.model import FileModel
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults
from abe_router.config.reading.node import YamlNode
from abe_router.messages.pattern import is_key, is_wild, naming
from abe_router.routing.case import Case, Expectation, FilePosition, OutcomeKind, PayloadMatcher, Publication

Steps = tuple[str | int, ...]

#: What names the messages of an expectation, where it is a mapping.
_NAMED_BY = {"handled": "route", "skipped": "route", "dead": "route", "emitted": "key", "rejected": "key"}


class Cases:
    """Builds the cases of a file. A key or a route that the file does not have is a fault."""

    def __init__(self, file: FileModel, root: YamlNode, faults: Faults) -> None:
        self._file, self._root, self._faults = file, root, faults
        # Of the file itself, so that a route with a fault is known.
        self._keys = root.at(["routes"]).parts
        self._known = naming(map(str, self._keys))
        consumers = {
            f"{key}/{group}": node
            for key, entry in self._keys.items()
            if (groups := entry.get(["consumers"])) is not None
            for group, node in groups.parts.items()
        }
        self._routes = consumers.keys()
        emits = (emit.value for node in consumers.values() if (emit := node.get(["emit"])))
        self._emitted = {key for key in emits if isinstance(key, str)}

    def all(self) -> tuple[Case, ...]:
        """Return the cases, in the order of the file."""
        return tuple(self._case(name, said) for name, said in self._file.tests.items())

    def _case(self, name: str, said: tests_model.CaseModel) -> Case:
        place: Steps = ("tests", name)
        span = self._root.name_at(place)
        return Case(
            name=name,
            position=FilePosition(span.line, span.column),
            publish=tuple(self._publications(said, place)),
            expect=tuple(self._expectations(said, place)),
        )

    def _publications(self, said: tests_model.CaseModel, place: Steps) -> Iterator[Publication]:
        for index, each in enumerate(said.publish):
            where = (*self._each((*place, "publish"), index), "key")
            if not is_key(each.key):
                self._fault(
                    f"`{each.key[:80]}` is not a routing key", where, "a routing key has no wildcards"
                )
            elif self._file.unrouted == "error" and not self._known.match(each.key):
                keys = [key for key in map(str, self._keys) if not is_wild(key)]
                self._unknown(f"no key or pattern in `routes` names `{each.key}`", each.key, keys, where)
            yield Publication(each.key, each.payload, each.headers, _given(each, "id"), each.unchecked)

    def _expectations(self, said: tests_model.CaseModel, place: Steps) -> Iterator[Expectation]:
        published = {each.key for each in said.publish}
        whats: tuple[OutcomeKind, ...] = ("handled", "skipped", "dead", "emitted", "rejected", "nothing")
        for what in whats:
            for index, each in enumerate(getattr(said, what)):
                where = self._each((*place, what), index)
                span = self._root.span_at(where)
                name = each if isinstance(each, str) else _given(each, _NAMED_BY[what])
                if what == "emitted":
                    self._check(name, self._emitted, "no route emits `{}`", (*where, "key"))
                elif what == "rejected" and name is not None:
                    self._check(name, published, "the case does not publish to `{}`", (*where, "key"))
                elif what != "rejected":
                    self._check(name, self._routes, "no route `{}`", (*where, "route"))
                yield Expectation(
                    what=what,
                    position=FilePosition(span.line, span.column),
                    name=name,
                    payload=self._matcher(each, where),
                    kind=_given(each, "kind"),
                    pointer=_given(each, "at"),
                    keyword=_given(each, "keyword"),
                    error=_given(each, "error"),
                )

    def _matcher(self, said: object, where: Steps) -> PayloadMatcher | None:
        given = [name for name in ("payload", "containing") if getattr(said, name, UNSET) is not UNSET]
        if len(given) == 2:
            self._fault(
                "`payload` and `containing` are both given", (*where, "containing"), "remove one of them"
            )
        return PayloadMatcher(getattr(said, given[0]), exactly=given[0] == "payload") if given else None

    def _each(self, place: Steps, index: int) -> Steps:
        """Return the path of the item at `index`, or `place` if the file has one value instead of a list."""
        return (*place, index) if isinstance(self._root.at(place).value, list) else place

    def _check(self, name: str, known: Collection[str], message: str, place: Steps) -> None:
        if name not in known:
            self._unknown(message.format(name[:80]), name, known, place)

    def _unknown(self, message: str, name: str, known: Collection[str], place: Steps) -> None:
        few = ", ".join(f"`{each}`" for each in nsmallest(8, known))
        self._fault(message, place, self._faults.did_you_mean(name, known) or (few and f"known: {few}"))

    def _fault(self, message: str, place: Steps, hint: str) -> None:
        self._faults.add(Code.CASE, message, self._root.span_at(place), hint=hint)


def _given(said: object, name: str) -> Any:
    """Return an option that is given, and None otherwise."""
    value = getattr(said, name, UNSET)
    return None if value is UNSET else plain(value)
