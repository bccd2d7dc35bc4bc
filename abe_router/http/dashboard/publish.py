"""The page that publishes: a form made from the schemas of a key, and what would become of the message.

With a dead letter in the query, the form has its message, and what is published replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import AbeRouterError, BackendError, PayloadMalformed, PublishError, Violation
from abe_router.http.access import Caller, Role, caller_of, require
from abe_router.http.dashboard.page import MAX_FORM, Notice, PageRoute, Pages, read_form
from abe_router.http.dashboard.payload_form import (
    Built,
    Texts,
    build,
    first_texts,
    has_inputs,
    inputs_of,
    texts_of,
    with_item,
    without_item,
)
from abe_router.http.dashboard.republish import Replaced, find_replaced, notice_of_republished
from abe_router.http.problem import Refusal
from abe_router.http.publish_problem import draining, outcome_unknown
from abe_router.http.republish import publish_republication
from abe_router.http.site import SharedAnswer, Site
from abe_router.messages.message import decode
from abe_router.messages.pattern import check_key
from abe_router.operations.errors import OperationError
from abe_router.operations.explain import Explanation, explain
from abe_router.operations.overrides import known_overrides
from abe_router.operations.payload_fields import PayloadField, payload_field
from abe_router.operations.republish import prepare_republication, read_exact, with_masked
from abe_router.routing.table import RouteTable
from abe_router.runtime.override import Override
from abe_router.runtime.publish import append, payload_bytes, prepare, window
from abe_router.text import mask_credentials

#: Most keys that the page suggests.
MOST_KEYS = 2_000
#: Most violations that a verdict lists.
MOST_VIOLATIONS = 50
#: Most inputs that a dead letter is shown in; a larger one is shown as JSON.
MOST_INPUTS = 300
#: Longest form, in bytes. A payload of a megabyte is longer in a form.
MAX_LENGTH = 4 * MAX_FORM


@dataclass(frozen=True)
class Draft:
    """A message that is not published yet: what the fields of the page have.

    `texts` are those of the inputs. With `is_json`, the payload is the text `json` instead. `purge` and `why`
    are for a dead letter that it replaces.
    """

    key: str
    texts: Texts = field(default_factory=dict)
    is_json: bool = False
    json: str = ""
    headers: str = ""
    id: str = ""
    purge: bool = False
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """What would become of a message.

    `fault` says why it cannot be checked. `explanation` is for callers that may see the routes of the key.
    """

    is_accepted: bool = False
    fault: str = ""
    reason: str = ""
    violations: Sequence[Violation] = ()
    explanation: Explanation | None = None
    faults: Mapping[str, str] = field(default_factory=dict)


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages."""
    publisher = PublishPages(site, pages)
    return [
        PageRoute("/publish", publisher.show, Role.PUBLISHER),
        PageRoute("/publish", publisher.act, Role.PUBLISHER, method="POST"),
        PageRoute("/publish/check", publisher.check, Role.PUBLISHER, method="POST"),
    ]


class PublishPages:
    """Answers the requests of the page. It keeps the fields of keys while their table is in force."""

    def __init__(self, site: Site, pages: Pages) -> None:
        self._site, self._pages = site, pages
        self._overrides: SharedAnswer[Sequence[Override] | None] = SharedAnswer(
            lambda: known_overrides(site.source.backend)
        )
        self._of: RouteTable | None = None
        self._fields: dict[str, PayloadField] = {}

    async def show(self, request: Request) -> Response:
        """Answer with a form for the key of the query, or for a dead letter; or ask for a key."""
        if (replaced := await find_replaced(request, self._site)) is not None:
            about = await self._field(replaced.draft.key)
            return await self._render(request, _draft_of(replaced, about), about, replaced=replaced)
        key = request.query_params.get("key", "").strip()
        if not key:
            return await self._render(request, Draft(""), PayloadField("", ""))
        require(request, Role.PUBLISHER, check_key(key))
        about = await self._field(key)
        draft = Draft(key, first_texts(about), is_json=not has_inputs(about), json="{}")
        return await self._render(request, draft, about)

    async def act(self, request: Request) -> Response:
        """Change the form, check the message, or publish it, as the pressed button says."""
        form = await read_form(request, MAX_LENGTH)
        draft, replaced = await self._given(request, form)
        about = await self._field(draft.key)
        action, _, pointer = form.get("do", "").partition(" ")
        if action == "publish":
            return await self._publish(request, draft, about, replaced)
        if action in ("json", "form"):
            draft, fault = _converted(draft, about, to_json=action == "json")
            verdict = Verdict(fault=fault) if fault else None
            return await self._render(request, draft, about, verdict, replaced=replaced)
        if action in ("add", "remove"):
            texts = (with_item if action == "add" else without_item)(draft.texts, pointer)
            return await self._render(request, replace(draft, texts=texts), about, replaced=replaced)
        verdict = await self._verdict(caller_of(request), draft, about, replaced)
        return await self._render(request, draft, about, verdict, replaced=replaced)

    async def check(self, request: Request) -> Response:
        """Answer with the verdict alone, for a page that shows it while a person types."""
        draft, replaced = await self._given(request, await read_form(request, MAX_LENGTH))
        about = await self._field(draft.key)
        verdict = await self._verdict(caller_of(request), draft, about, replaced)
        return await self._pages.render(
            request, "_verdict.html", title="", verdict=verdict, key=draft.key, most=MOST_VIOLATIONS
        )

    async def _given(self, request: Request, form: Mapping[str, str]) -> tuple[Draft, Replaced | None]:
        """Return the draft in a form, and the dead letter that it replaces, which has its key."""
        draft, replaced = _read_draft(form), await find_replaced(request, self._site)
        if replaced is not None:
            draft = replace(draft, key=replaced.draft.key)
        require(request, Role.PUBLISHER, check_key(draft.key))
        return draft, replaced

    async def _publish(
        self, request: Request, draft: Draft, about: PayloadField, replaced: Replaced | None
    ) -> Response:
        if self._site.source.readiness.draining:
            raise draining()
        caller, table = caller_of(request), self._site.source.table
        verdict = await self._verdict(caller, draft, about, replaced)
        if not verdict.is_accepted:
            return await self._render(request, draft, about, verdict, status=422, replaced=replaced)
        if replaced is not None:
            return await self._republish(request, draft, about, replaced)
        headers = _headers(draft.headers)
        id = draft.id.strip() or None
        seconds = window(table, draft.key, id)
        try:
            body = _payload(draft, about).body
            message = await asyncio.to_thread(prepare, table, draft.key, body, headers=headers, id=id)
            is_duplicate = bool(await append(self._site.source.backend, [(message, seconds)]))
        except PublishError as error:
            return await self._render(request, draft, about, Verdict(reason=_said(error)), status=422)
        except BackendError as error:
            refused = outcome_unknown(error, seconds)
            verdict = Verdict(fault=f"{refused.title}: {refused.detail}")
            return await self._render(request, draft, about, verdict, status=503)
        text = f"published {message.id} to {draft.key}"
        if is_duplicate:
            text = f"not published: {draft.key} has accepted a message with the id {message.id} before"
        notice = Notice(text, "warn" if is_duplicate else "ok")
        return self._pages.redirect(request, "/publish", notice, key=draft.key)

    async def _republish(
        self, request: Request, draft: Draft, about: PayloadField, replaced: Replaced
    ) -> Response:
        """Publish a message in place of a dead letter, and go to the list that had it."""
        table, body = self._site.source.table, _payload(draft, about).body
        headers = _headers(draft.headers) | replaced.kept
        try:
            republication = await asyncio.to_thread(
                prepare_republication, replaced.dead, table, body, headers
            )
            found = await publish_republication(
                self._site, republication, request, purge=draft.purge, why=draft.why
            )
        except (PublishError, PayloadMalformed, OperationError) as error:
            verdict, status = Verdict(fault=_said(error)), 422
        except Refusal as refused:
            verdict, status = Verdict(fault=f"{refused.title}: {refused.detail}"), refused.status
        else:
            return self._pages.redirect(request, replaced.list_path, notice_of_republished(replaced, found))
        return await self._render(request, draft, about, verdict, status=status, replaced=replaced)

    async def _verdict(
        self, caller: Caller, draft: Draft, about: PayloadField, replaced: Replaced | None
    ) -> Verdict:
        try:
            headers = _headers(draft.headers)
        except ValueError as error:
            return Verdict(fault=str(error))
        built = _payload(draft, about)
        if built.faults:
            return Verdict(fault="some fields cannot be read", faults=built.faults)
        table, overrides = self._site.source.table, await self._overrides.get() or ()

        def explained() -> Explanation:
            if replaced is None:
                return explain(table, draft.key, built.body, headers=headers, overrides=overrides)
            body, all_headers = with_masked(replaced.dead, table, built.body), headers | replaced.kept
            found = explain(table, draft.key, body, headers=all_headers, overrides=overrides)
            return msgspec.structs.replace(found, deduplication=None)  # it has an id of its own

        try:
            found = await asyncio.to_thread(explained)  # a payload may have many violations
        except AbeRouterError as error:
            return Verdict(fault=_said(error))
        violations = [violation for schema in found.schemas for violation in schema.violations]
        reason = "" if violations or found.reason is None else found.reason
        shown = found if caller.allows(Role.VIEWER, draft.key) else None
        return Verdict(
            found.accepted, reason=mask_credentials(reason), violations=violations, explanation=shown
        )

    async def _render(
        self,
        request: Request,
        draft: Draft,
        about: PayloadField,
        verdict: Verdict | None = None,
        *,
        status: int = 200,
        replaced: Replaced | None = None,
    ) -> Response:
        table, caller = self._site.source.table, caller_of(request)
        faults: dict[str, list[str]] = {}
        for name, fault in verdict.faults.items() if verdict else ():
            faults.setdefault(name[2:], []).append(fault)
        for each in verdict.violations[:MOST_VIOLATIONS] if verdict else ():
            faults.setdefault(each.pointer, []).append(f"expected {each.expected}, found {each.found}")
        deduplication = table.contract(draft.key).deduplication if draft.key else None
        keys = [key for key in table.concrete_keys if caller.allows(Role.PUBLISHER, key)]
        return await self._pages.render(
            request,
            "publish.html",
            title=f"Change dead letter {replaced.dead.id}" if replaced else f"Publish {draft.key}".strip(),
            status=status,
            draft=draft,
            replaced=replaced,
            key=draft.key,
            has_inputs=has_inputs(about),
            payload=inputs_of(about, draft.texts),
            verdict=verdict,
            faults=faults,
            takes_id=deduplication is not None and not deduplication.source and replaced is None,
            is_known=not draft.key or table.contract(draft.key).known,
            metadata=table.metadata_of(draft.key),
            keys=keys[:MOST_KEYS],
            most=MOST_VIOLATIONS,
        )

    async def _field(self, key: str) -> PayloadField:
        table = self._site.source.table
        if self._of is not table or len(self._fields) >= MOST_KEYS:
            self._of, self._fields = table, {}
        if key not in self._fields:
            self._fields[key] = await asyncio.to_thread(payload_field, table, key)
        return self._fields[key]


def _read_draft(form: Mapping[str, str]) -> Draft:
    return Draft(
        key=form.get("key", "").strip(),
        texts={
            name: text.replace("\r\n", "\n")
            for name, text in form.items()
            if name[:2] in ("p:", "j:", "n:", "x:")
        },
        is_json=form.get("mode") == "json",
        json=form.get("json", ""),
        headers=form.get("headers", ""),
        id=form.get("id", ""),
        purge=form.get("purge") == "on",
        why=form.get("why", "").strip(),
    )


def _draft_of(replaced: Replaced, about: PayloadField) -> Draft:
    """Return the message of a dead letter in the fields of the page."""
    found = replaced.draft
    texts: Texts = {}
    text = found.text
    if found.payload is not msgspec.UNSET:
        texts = texts_of(about, read_exact(bytes(found.payload)))
        text = msgspec.json.format(bytes(found.payload), indent=2).decode()
    is_json = not texts or not has_inputs(about) or len(texts) > MOST_INPUTS
    return Draft(
        found.key,
        {} if is_json else texts,
        is_json,
        text if is_json else "",
        headers=replaced.headers,
        purge=replaced.may_purge,
    )


def _payload(draft: Draft, about: PayloadField) -> Built:
    if not draft.is_json:
        return build(about, draft.texts)
    try:
        body = payload_bytes(draft.json.encode("utf-8", "surrogatepass"), "the payload")
        decode(body)
    except PayloadMalformed as error:
        return Built(faults={"j:": _said(error)})
    return Built(body)


def _converted(draft: Draft, about: PayloadField, *, to_json: bool) -> tuple[Draft, str]:
    """Return a draft in its other form, and why that is not possible."""
    if to_json == draft.is_json or (not to_json and not has_inputs(about)):
        return draft, ""
    built = _payload(draft, about)
    if built.faults:
        return draft, "; ".join(f"{name[2:]} {fault}".strip() for name, fault in built.faults.items())
    if to_json:
        return replace(draft, is_json=True, json=msgspec.json.format(built.body, indent=2).decode()), ""
    return replace(draft, is_json=False, texts=texts_of(about, read_exact(built.body))), ""


def _headers(text: str) -> dict[str, str]:
    """Return the headers in lines of `NAME: VALUE`; raise ValueError if one is malformed."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"`{line[:80]}` is not a header: write NAME: VALUE")
        found[name.strip()] = value.strip()
    return found


def _said(error: AbeRouterError) -> str:
    hint = getattr(error, "hint", "")
    return mask_credentials(f"{error}; {hint}" if hint else str(error))
