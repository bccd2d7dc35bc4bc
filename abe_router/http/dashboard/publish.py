"""The page that publishes: a payload as JSON, an example to begin with, and what would become of the message.

With a dead letter in the query, the form has its message, and what is published replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import AbeRouterError, BackendError, PayloadMalformed, PublishError, Violation
from abe_router.http.access import Caller, Role, caller_of, require
from abe_router.http.dashboard.page import MAX_FORM, Notice, PageRoute, Pages, read_form
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
from abe_router.operations.payload_fields import example_of, payload_field
from abe_router.operations.republish import prepare_republication, with_masked
from abe_router.routing.table import RouteTable
from abe_router.runtime.override import Override
from abe_router.runtime.publish import append, payload_bytes, prepare, window
from abe_router.text import mask_credentials

#: Most keys that the page suggests.
MOST_KEYS = 2_000
#: Most violations that a verdict lists.
MOST_VIOLATIONS = 50
#: Longest form, in bytes. A payload of a megabyte is longer in a form.
MAX_LENGTH = 4 * MAX_FORM


@dataclass(frozen=True)
class Draft:
    """A message that is not published yet: what the fields of the page have.

    `json` is the payload. `purge` and `why` are for a dead letter that it replaces.
    """

    key: str
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


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages."""
    publisher = PublishPages(site, pages)
    return [
        PageRoute("/publish", publisher.show, Role.PUBLISHER),
        PageRoute("/publish", publisher.act, Role.PUBLISHER, method="POST"),
        PageRoute("/publish/check", publisher.check, Role.PUBLISHER, method="POST"),
    ]


class PublishPages:
    """Answers the requests of the page. It keeps the examples of keys while their table is in force."""

    def __init__(self, site: Site, pages: Pages) -> None:
        self._site, self._pages = site, pages
        self._overrides: SharedAnswer[Sequence[Override] | None] = SharedAnswer(
            lambda: known_overrides(site.source.backend)
        )
        self._of: RouteTable | None = None
        self._examples: dict[str, str] = {}

    async def show(self, request: Request) -> Response:
        """Answer with a form for the key of the query, or for a dead letter; or ask for a key."""
        if (replaced := await find_replaced(request, self._site)) is not None:
            return await self._render(request, _draft_of(replaced), replaced=replaced)
        key = request.query_params.get("key", "").strip()
        if not key:
            return await self._render(request, Draft(""))
        require(request, Role.PUBLISHER, check_key(key))
        return await self._render(request, Draft(key, await self._example(key)))

    async def act(self, request: Request) -> Response:
        """Check the message, or publish it, as the pressed button says."""
        form = await read_form(request, MAX_LENGTH)
        draft, replaced = await self._given(request, form)
        if form.get("do") == "publish":
            return await self._publish(request, draft, replaced)
        verdict = await self._verdict(caller_of(request), draft, replaced)
        return await self._render(request, draft, verdict, replaced=replaced)

    async def check(self, request: Request) -> Response:
        """Answer with the verdict alone, for a page that shows it while a person types."""
        draft, replaced = await self._given(request, await read_form(request, MAX_LENGTH))
        verdict = await self._verdict(caller_of(request), draft, replaced)
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

    async def _publish(self, request: Request, draft: Draft, replaced: Replaced | None) -> Response:
        if self._site.source.readiness.draining:
            raise draining()
        caller, table = caller_of(request), self._site.source.table
        verdict = await self._verdict(caller, draft, replaced)
        if not verdict.is_accepted:
            return await self._render(request, draft, verdict, status=422, replaced=replaced)
        if replaced is not None:
            return await self._republish(request, draft, replaced)
        headers = _headers(draft.headers)
        id = draft.id.strip() or None
        seconds = window(table, draft.key, id)
        try:
            body = _payload(draft)
            message = await asyncio.to_thread(prepare, table, draft.key, body, headers=headers, id=id)
            is_duplicate = bool(await append(self._site.source.backend, [(message, seconds)]))
        except PublishError as error:
            return await self._render(request, draft, Verdict(reason=_said(error)), status=422)
        except BackendError as error:
            refused = outcome_unknown(error, seconds)
            verdict = Verdict(fault=f"{refused.title}: {refused.detail}")
            return await self._render(request, draft, verdict, status=503)
        text = f"published {message.id} to {draft.key}"
        if is_duplicate:
            text = f"not published: {draft.key} has accepted a message with the id {message.id} before"
        notice = Notice(text, "warn" if is_duplicate else "ok")
        return self._pages.redirect(request, "/publish", notice, key=draft.key)

    async def _republish(self, request: Request, draft: Draft, replaced: Replaced) -> Response:
        """Publish a message in place of a dead letter, and go to the list that had it."""
        table, body = self._site.source.table, _payload(draft)
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
        return await self._render(request, draft, verdict, status=status, replaced=replaced)

    async def _verdict(self, caller: Caller, draft: Draft, replaced: Replaced | None) -> Verdict:
        try:
            headers, given = _headers(draft.headers), _payload(draft)
        except ValueError as error:
            return Verdict(fault=str(error))
        except PayloadMalformed as error:
            return Verdict(fault=_said(error))
        table, overrides = self._site.source.table, await self._overrides.get() or ()

        def explained() -> Explanation:
            if replaced is None:
                return explain(table, draft.key, given, headers=headers, overrides=overrides)
            body, all_headers = with_masked(replaced.dead, table, given), headers | replaced.kept
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
        verdict: Verdict | None = None,
        *,
        status: int = 200,
        replaced: Replaced | None = None,
    ) -> Response:
        table, caller = self._site.source.table, caller_of(request)
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
            verdict=verdict,
            takes_id=deduplication is not None and not deduplication.source and replaced is None,
            is_known=not draft.key or table.contract(draft.key).known,
            metadata=table.metadata_of(draft.key),
            keys=keys[:MOST_KEYS],
            most=MOST_VIOLATIONS,
        )

    async def _example(self, key: str) -> str:
        table = self._site.source.table
        if self._of is not table or len(self._examples) >= MOST_KEYS:
            self._of, self._examples = table, {}
        if key not in self._examples:
            example = example_of(await asyncio.to_thread(payload_field, table, key))
            self._examples[key] = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
        return self._examples[key]


def _read_draft(form: Mapping[str, str]) -> Draft:
    return Draft(
        key=form.get("key", "").strip(),
        json=form.get("json", ""),
        headers=form.get("headers", ""),
        id=form.get("id", ""),
        purge=form.get("purge") == "on",
        why=form.get("why", "").strip(),
    )


def _draft_of(replaced: Replaced) -> Draft:
    """Return the message of a dead letter in the fields of the page."""
    found = replaced.draft
    text = found.text
    if found.payload is not msgspec.UNSET:
        text = msgspec.json.format(bytes(found.payload), indent=2).decode()
    return Draft(found.key, text, headers=replaced.headers, purge=replaced.may_purge)


def _payload(draft: Draft) -> bytes:
    """Return the payload of a draft; raise PayloadMalformed if it is no JSON."""
    body = payload_bytes(draft.json.encode("utf-8", "surrogatepass"), "the payload")
    decode(body)
    return body


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
