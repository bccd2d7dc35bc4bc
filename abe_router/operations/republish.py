"""Republishes a dead letter: its message is changed, and published as a new message under a new id.

A draft has the payload as JSON. In place of each value that the schemas mark as `x-sensitive`, it has a
reference such as `(masked /customer/card)`. A reference in the changed payload stands for that value, also
in another item of an array. It is accepted only where the schemas mark the place as sensitive too, so that no
value gets to a place that shows it.

The id of the new message follows from the dead letter and is remembered for `WINDOW`. So the same dead letter
is republished once, however often the call is repeated. The dead letter is purged after the new message was
accepted: a crash in between loses nothing, and a repetition purges it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from abe_router.backend import Backend, DeadLetter
from abe_router.errors import BackendError
from abe_router.messages.message import Message, decode
from abe_router.messages.pointer import escape
from abe_router.operations.audit import Author, record_act
from abe_router.operations.dead_letters import is_json
from abe_router.operations.errors import OperationRefused
from abe_router.operations.masked import masked_headers
from abe_router.routing.policies import CAUSE
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import prepare
from abe_router.schema.sensitive import MASKED
from abe_router.text import mask_credentials

#: How long the id of a republished message is remembered, in seconds.
WINDOW = 30 * 86_400.0
#: Most changes that an act and an answer name.
MOST_CHANGES = 50
#: What a payload has at a pointer that it does not have.
_ABSENT = object()


class RepublishDraft(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dead letter as it can be changed.

    `payload` has references in place of the values at the pointers in `masked`. It is UNSET if the body is
    not JSON; `text` is the body then, or empty if it is masked as a whole. `id` is the id of the new message.
    Its header `abe-cause` has the value `cause`, and is not among `headers`.
    """

    route: str
    dead_letter: str
    key: str
    id: str
    cause: str
    headers: Mapping[str, str]
    masked: tuple[str, ...]
    payload: Any = msgspec.UNSET
    text: str = ""

    @property
    def body(self) -> bytes:
        """The payload as JSON, empty if the body of the dead letter is not JSON."""
        return b"" if self.payload is msgspec.UNSET else bytes(self.payload)


@dataclass(frozen=True, slots=True)
class Republication:
    """A checked message that is to be published in place of a dead letter.

    `changed` has a JSON pointer for each changed value, and `header NAME` for each changed header.
    """

    dead: DeadLetter
    message: Message
    changed: tuple[str, ...]


class Republished(msgspec.Struct, frozen=True):
    """What came of a republication.

    `id` is that of the new message. With `duplicate`, the message was not published, because one in place of
    the dead letter was accepted before. `changed` says what differs. `purged` says whether the dead letter
    was deleted, and `failure` why it could not be, if it should.
    """

    id: str
    duplicate: bool
    changed: tuple[str, ...]
    purged: bool
    failure: str = ""


def draft_of(dead: DeadLetter, table: RouteTable) -> RepublishDraft:
    """Return a dead letter as it can be changed; raise KeyInvalid if its key is malformed.

    Raise OperationRefused without a routes file: its schemas say what is masked.
    """
    if not table.revision:
        raise OperationRefused("only the schemas of a routes file say which values are masked")
    message, places = dead.message, _Places(table, dead.message.key)
    payload: Any = msgspec.UNSET
    text, masked = "", list[str]()
    if is_json(message.body):
        shown, references = places.referenced(read_exact(message.body))
        payload = msgspec.Raw(msgspec.json.encode(shown))
        masked = [pointer for pointer, _ in references.values()]
    elif not places.any:
        text = message.body.decode(errors="backslashreplace")
    return RepublishDraft(
        route=dead.route,
        dead_letter=dead.id,
        key=message.key,
        id=_new_id(dead),
        cause=message.id,
        headers=_kept_headers(dead, table),
        masked=tuple(masked),
        payload=payload,
        text=text,
    )


def with_masked(dead: DeadLetter, table: RouteTable, body: bytes) -> bytes:
    """Return a changed payload with the values that its references stand for.

    Raise KeyInvalid, PayloadMalformed, and OperationRefused if a reference cannot be replaced.
    """
    return _replaced(dead, table, body)[0]


def prepare_republication(
    dead: DeadLetter, table: RouteTable, body: bytes, headers: Mapping[str, str]
) -> Republication:
    """Return the checked message for a changed payload; raise what `with_masked` and `prepare` raise."""
    former, given = _kept_headers(dead, table), _without_cause(headers)
    replaced, changed = _replaced(dead, table, body)
    message = prepare(table, dead.message.key, replaced, headers=given | {CAUSE: dead.message.id})
    names = sorted(name for name in {*former, *given} if former.get(name) != given.get(name))
    return Republication(
        dead,
        msgspec.structs.replace(message, id=_new_id(dead)),
        (*changed, *(f"header {name}" for name in names)),
    )


async def republish(
    backend: Backend, republication: Republication, *, author: Author, why: str = "", purge: bool = False
) -> Republished:
    """Publish the message in place of a dead letter, then purge that if wanted, and record the act.

    Raise BackendError if it is unknown whether the message was published: the same call can be repeated. If
    only the purge fails, the result says so. Raise OperationRefused if the backend remembers no ids.
    """
    if not backend.features.dedupe:
        raise OperationRefused(
            "the backend remembers no ids, so a repetition would publish the message twice"
        )
    dead, message, changed = republication.dead, republication.message, republication.changed
    duplicate = bool(await backend.append_once([(message, WINDOW)]))
    purged, failure = False, ""
    if purge:
        pattern, _, group = dead.route.rpartition("/")
        try:
            purged = bool(await backend.purge(pattern, group, [dead.id]))
            failure = "" if purged else "it was gone"
        except BackendError as error:
            failure = mask_credentials(str(error))
    shown = changed[:MOST_CHANGES]
    said = [f"{message.id} was accepted before" if duplicate else f"published {message.id}"]
    if not duplicate:
        more = f" and {len(changed) - len(shown):,} more" if len(changed) > len(shown) else ""
        said.append(f"changed {', '.join(pointer or '(root)' for pointer in shown) or 'nothing'}{more}")
    if purge:
        said.append("purged" if purged else f"not purged: {failure}")
    target = f"{dead.route} {dead.id}"
    await record_act(backend, author, "dead republish", target, why=why, result="; ".join(said))
    return Republished(message.id, duplicate, shown, purged, failure)


def read_exact(body: bytes) -> Any:
    """Return the value of a JSON body whose fractions keep every digit; raise PayloadMalformed.

    A number with a point or an exponent is a `msgspec.Raw`, which is encoded as it was.
    """
    decode(body)  # it refuses what the other parser accepts
    return json.loads(body, parse_float=lambda text: msgspec.Raw(text.encode()))


def _without_cause(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers without that of the cause, which the new message gets anew."""
    return {name: value for name, value in headers.items() if name.lower() != CAUSE}


def _kept_headers(dead: DeadLetter, table: RouteTable) -> dict[str, str]:
    """Return the headers of a dead letter that a new message may have: none of those that are masked."""
    message = dead.message
    return _without_cause(message.headers) if masked_headers(table, message) is message.headers else {}


def _new_id(dead: DeadLetter) -> str:
    """Return the id of the message in place of a dead letter. A backend may use the id of that again."""
    facts = [dead.route, dead.id, dead.message.id, dead.last_failed_at]
    return f"republished-{sha256(msgspec.json.encode(facts)).hexdigest()[:24]}"


def _replaced(dead: DeadLetter, table: RouteTable, body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a changed payload without references, and the pointers of its changes."""
    places = _Places(table, dead.message.key)
    shown, references = _ABSENT, dict[str, tuple[str, Any]]()
    if is_json(dead.message.body):
        shown, references = places.referenced(read_exact(dead.message.body))
    given = read_exact(body)
    values = {reference: value for reference, (_, value) in references.items()}
    replaced = places.replaced(given, values)
    return msgspec.json.encode(replaced), tuple(_changes(shown, given, ""))


class _Places:
    """The sensitive places in payloads of a key. They depend on paths and types alone."""

    def __init__(self, table: RouteTable, key: str) -> None:
        self._contract = table.contract(key)
        #: Whether there may be sensitive places.
        self.any = any(schema.has_sensitive for schema in self._contract.schemas)

    def referenced(self, value: Any) -> tuple[Any, dict[str, tuple[str, Any]]]:
        """Return a payload with references, and for each reference the pointer and the value."""
        found: dict[str, tuple[str, Any]] = {}

        def walk(value: Any, mask: Any, pointer: str) -> Any:
            if mask == MASKED:
                reference = f"(masked {pointer})" if pointer else MASKED
                found[reference] = pointer, value
                return reference
            return _walked(value, mask, pointer, walk)

        return walk(value, self._masks(value), ""), found

    def replaced(self, value: Any, values: Mapping[str, Any]) -> Any:
        """Return a payload with the values of its references; raise OperationRefused if one is misplaced."""

        def walk(value: Any, mask: Any, pointer: str) -> Any:
            is_reference = isinstance(value, str) and value in values
            if mask == MASKED:
                if is_reference:
                    return values[value]
                if any(text == MASKED or text in values for text in _texts(value)):
                    raise OperationRefused(
                        f"`{pointer or '(root)'}` has no value, but the text that stands for a masked one",
                        hint="write a value there, or the whole reference that the draft has",
                    )
                return value
            if is_reference:
                raise OperationRefused(
                    f"`{pointer or '(root)'}` has the reference `{value}`, and is not a sensitive place",
                    hint="a masked value would be shown there: move the reference back",
                )
            return _walked(value, mask, pointer, walk)

        return walk(value, self._masks(value), "")

    def _masks(self, value: Any) -> Any:
        """Return the form of a payload: its types, and MASKED for each sensitive place."""
        form = _form(value)
        return self._contract.mask(form) if self.any else form


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _form(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_form(item) for item in value]
    return "" if isinstance(value, str) else value


def _walked(value: Any, mask: Any, pointer: str, walk: Any) -> Any:
    """Return an object or an array with `walk` applied to its members or items; another value as it is."""
    if isinstance(value, dict):
        return {name: walk(each, mask[name], f"{pointer}/{escape(name)}") for name, each in value.items()}
    if isinstance(value, list):
        return [walk(each, mask[at], f"{pointer}/{at}") for at, each in enumerate(value)]
    return value


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a value."""
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(each)


def _changes(before: Any, after: Any, pointer: str) -> Iterator[str]:
    """Yield the pointers at which two payloads differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            below = f"{pointer}/{escape(name)}"
            yield from _changes(before.get(name, _ABSENT), after.get(name, _ABSENT), below)
    elif isinstance(before, list) and isinstance(after, list):
        for at in range(max(len(before), len(after))):
            old, new = (each[at] if at < len(each) else _ABSENT for each in (before, after))
            yield from _changes(old, new, f"{pointer}/{at}")
    elif before is _ABSENT or after is _ABSENT or msgspec.json.encode(before) != msgspec.json.encode(after):
        yield pointer
