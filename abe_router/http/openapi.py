"""The OpenAPI 3.1 document of the API, made from the endpoints that the application routes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.endpoint import AnyOf, Content, Endpoint, Parameter, Problem, json_content
from abe_router.http.site import Site, json_response

_PROBLEM = "application/problem+json"
#: Problems of every endpoint.
_SHARED_PROBLEMS = {
    401: "the request has no valid token",
    403: "the token does not have the role, or may not use the key",
}
#: The parameters of paths that mean the same everywhere.
_PATH_TEXTS = {"key": "A routing key, or the key or pattern of a route.", "group": "The group of a route."}
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def routes(_: Site) -> list[Route]:
    """Return the endpoint of the document."""
    documents: dict[int, dict[str, Any]] = {}

    async def openapi(request: Request) -> Response:
        application = request.app
        if id(application) not in documents:
            documents[id(application)] = openapi_document(application.routes)
        return json_response(documents[id(application)])

    summary, content = "This document", json_content(dict[str, Any], "the OpenAPI 3.1 document of the API")
    return [Endpoint("GET", "/v1/openapi.json", openapi, None, summary, answers={200: content})]


def openapi_document(routes: Iterable[object]) -> dict[str, Any]:
    """Return the document of all endpoints among the routes of an application."""
    endpoints = [route for route in routes if isinstance(route, Endpoint)]
    schemas = _Schemas([Problem, str, *(kind for endpoint in endpoints for kind in _types(endpoint))])
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _PATH_PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "abe-router",
            "version": _version(),
            "summary": "Operate a router, and publish messages.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                str(status): _response(Content(text, {_PROBLEM: Problem}), schemas)
                for status, text in _SHARED_PROBLEMS.items()
            },
        },
    }


class _Schemas:
    """The JSON Schemas of types. `components` are those with a name, which the others refer to."""

    def __init__(self, types: Sequence[Any]) -> None:
        self._types = [kind for each in types for kind in _plain(each)]
        self._schemas, self.components = msgspec.json.schema_components(
            self._types, ref_template="#/components/schemas/{name}", schema_hook=lambda _: {}
        )

    def of(self, kind: Any) -> Mapping[str, Any]:
        """Return the schema of a type."""
        if isinstance(kind, AnyOf):
            either = {"anyOf": [self.of(each) for each in kind.types]}
            return {"type": "array", "items": either} if kind.many else either
        return self._schemas[self._types.index(kind)]


def _types(endpoint: Endpoint) -> Iterable[Any]:
    """Yield the types of everything that an endpoint takes and returns."""
    yield from (parameter.type for parameter in endpoint.parameters)
    for content in (endpoint.body, *endpoint.answers.values()):
        if content is not None:
            yield from content.types.values()


def _plain(kind: Any) -> Iterable[Any]:
    if not isinstance(kind, AnyOf):
        return (kind,)
    return (plain for each in kind.types for plain in _plain(each))


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": endpoint.name, "summary": endpoint.summary}
    role = "any" if endpoint.role is None else f"`{endpoint.role}`"
    operation["description"] = f"{endpoint.details}\n\nRole: {role}.".strip()
    described = {parameter.name: parameter for parameter in endpoint.parameters}
    in_path = _PATH_PARAMETER.findall(endpoint.path)
    parameters = [described.get(name) or Parameter(name, _PATH_TEXTS[name], "path") for name in in_path]
    parameters += [each for each in endpoint.parameters if each.name not in in_path]
    if parameters:
        operation["parameters"] = [_parameter(each, schemas) for each in parameters]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, **_response(endpoint.body, schemas)}
    answers = {str(status): _response(content, schemas) for status, content in endpoint.answers.items()}
    for status, text in endpoint.problems.items():
        answers[str(status)] = _response(Content(text, {_PROBLEM: Problem}), schemas)
    for status in _SHARED_PROBLEMS:
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    operation["responses"] = dict(sorted(answers.items()))
    return operation


def _parameter(parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.where == "path",
        "schema": schemas.of(parameter.type),
    }


def _response(content: Content, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": content.description}
    if content.types:
        described["content"] = {media: {"schema": schemas.of(kind)} for media, kind in content.types.items()}
    return described


def _version() -> str:
    try:
        return version("abe-router")
    except PackageNotFoundError:
        return "0"
