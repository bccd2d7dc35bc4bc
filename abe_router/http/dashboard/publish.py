"""The page that publishes: a form made from the schemas of a key, and what would become of the message."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import AbeRouterError, BackendError, PublishError, Violation
from abe_router.http.access import Caller, Role, caller_of, require
from abe_router.http.dashboard.page import Notice, PageRoute, Pages, read_form
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
from abe_router.http.publish_problem import draining, outcome_unknown
from abe_router.http.site import SharedAnswer, Site
from abe_router.messages.message import decode
from abe_router.messages.pattern import check_key
from abe_router.operations.explain import Explanation, explain
from abe_router.operations.overrides import known_overrides
from abe_router.operations.payload_fields import PayloadField, payload_field
from abe_router.routing.table import RouteTable
from abe_router.runtime.override import Override
from abe_router.runtime.publish import append, payload_bytes, prepare, window
from abe_router.text import mask_credentials

#: Most keys that the page suggests.
MOST_KEYS = 2_000
#: Most violations that a verdict lists.
MOST_VIOLATIONS = 50


@dataclass(frozen=True)
class Draft:
    """A message that is not published yet: what the fields of the page have.

    `texts` are those of the inputs. With `is_json`, the payload is the text `json` instead.
    """

    key: str
    texts: Texts = field(default_factory=dict)
    is_json: bool = False
    json: str = ""
    headers: str = ""
    id: str = ""


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
        """Answer with an empty form for the key of the query, or ask for a key."""
        key = request.query_params.get("key", "").strip()
        if not key:
            return await self._render(request, Draft(""), PayloadField("", ""))
        require(request, Role.PUBLISHER, check_key(key))
        about = await self._field(key)
        draft = Draft(key, first_texts(about), is_json=not has_inputs(about), json="{}")
        return await self._render(request, draft, about)

    async def act(self, request: Request) -> Response:
        """Change the form, check the message, or publish it, as the pressed button says."""
        form = await read_form(request)
        draft = _read_draft(form)
        caller = require(request, Role.PUBLISHER, check_key(draft.key))
        about = await self._field(draft.key)
        action, _, pointer = form.get("do", "").partition(" ")
        if action == "publish":
            return await self._publish(request, draft, about)
        if action in ("json", "form"):
            draft, fault = _converted(draft, about, to_json=action == "json")
            verdict = Verdict(fault=fault) if fault else None
            return await self._render(request, draft, about, verdict)
        if action in ("add", "remove"):
            texts = (with_item if action == "add" else without_item)(draft.texts, pointer)
            return await self._render(request, replace(draft, texts=texts), about)
        return await self._render(request, draft, about, await self._verdict(caller, draft, about))

    async def check(self, request: Request) -> Response:
        """Answer with the verdict alone, for a page that shows it while a person types."""
        draft = _read_draft(await read_form(request))
        caller = require(request, Role.PUBLISHER, check_key(draft.key))
        verdict = await self._verdict(caller, draft, await self._field(draft.key))
        return await self._pages.render(
            request, "_verdict.html", title="", verdict=verdict, key=draft.key, most=MOST_VIOLATIONS
        )

    async def _publish(self, request: Request, draft: Draft, about: PayloadField) -> Response:
        if self._site.source.readiness.draining:
            raise draining()
        caller, table = require(request, Role.PUBLISHER, draft.key), self._site.source.table
        verdict = await self._verdict(caller, draft, about)
        if not verdict.is_accepted:
            return await self._render(request, draft, about, verdict, status=422)
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

    async def _verdict(self, caller: Caller, draft: Draft, about: PayloadField) -> Verdict:
        try:
            headers = _headers(draft.headers)
        except ValueError as error:
            return Verdict(fault=str(error))
        built = _payload(draft, about)
        if built.faults:
            return Verdict(fault="some fields cannot be read", faults=built.faults)
        run = partial(
            explain,
            self._site.source.table,
            draft.key,
            built.body,
            headers=headers,
            overrides=await self._overrides.get() or (),
        )
        try:
            found = await asyncio.to_thread(run)  # a payload may have many violations
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
            title=f"Publish {draft.key}" if draft.key else "Publish",
            status=status,
            draft=draft,
            key=draft.key,
            has_inputs=has_inputs(about),
            payload=inputs_of(about, draft.texts),
            verdict=verdict,
            faults=faults,
            takes_id=deduplication is not None and not deduplication.source,
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
    )


def _payload(draft: Draft, about: PayloadField) -> Built:
    if not draft.is_json:
        return build(about, draft.texts)
    try:
        body = payload_bytes(draft.json.encode("utf-8", "surrogatepass"), "the payload")
        decode(body)
    except PublishError as error:
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
    return replace(draft, is_json=False, texts=texts_of(about, decode(built.body))), ""


def _headers(text: str) -> Mapping[str, str]:
    """Return the headers in lines of `NAME: VALUE`; raise ValueError if one is malformed."""
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"`{line[:80]}` is not a header: write NAME: VALUE")
        found[name.strip()] = value.strip()
    return found


def _said(error: AbeRouterError) -> str:
    return mask_credentials(str(error))
