"""`/openapi.json`, generated from the table of routes and the msgspec types; `/docs` shows it."""

import re
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web

from dispatcher.http.auth import CALLBACKS
from dispatcher.http.auth import __doc__ as _roles
from dispatcher.http.problem import PROBLEM_TYPE, ProblemDocument, json_response
from dispatcher.http.routes import Route

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_PROBLEMS: Final = {
    400: "The request cannot be read", 401: "No valid key", 403: "The key has no role for this",
    404: "There is no such thing", 409: "Something else depends on it", 412: "The document was changed meanwhile",
    413: "Too large", 415: "Unknown content type", 422: "The document has errors; each names its path",
    429: "Overloaded: come again after Retry-After", 501: "Not offered yet",
    503: "Not available now: come again after Retry-After",
}  # fmt: skip


def describe(routes: list[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    types = [t for r in routes for taken in (*r.takes.values(), *r.answers.values()) for t in _each(taken)]
    types.append(ProblemDocument)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dispatcher", "version": "1", "description": (_roles or "").strip()},
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": _operation_id(route),
        "responses": _responses(route, schema_of),
    }
    if route.text:
        operation["description"] = route.text
    parameters = [_parameter(name, "path", True, "") for name in _PARAMETER.findall(route.path)]
    parameters += [_parameter(name, "query", False, text) for name, text in route.query.items()]
    if route.guarded:
        parameters.append(_parameter("If-Match", "header", False, "the ETag the change is for; absent: any"))
    if parameters:
        operation["parameters"] = parameters
    if route.takes:
        content = {type_: {"schema": schema_of[repr(body)]} for type_, body in route.takes.items()}
        operation["requestBody"] = {"required": True, "content": content}
    if not _keyed(route):
        operation["security"] = []
    return operation


def _keyed(route: Route) -> bool:
    return route.path.startswith("/v1/") and not route.path.startswith(CALLBACKS)


def _each(types: Any) -> tuple[Any, ...]:
    if types is None:
        return ()
    return types if isinstance(types, tuple) else (types,)


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.path.removeprefix("/v1"))
    return "_".join([route.method.lower(), *words])


def _parameter(name: str, place: str, required: bool, text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "description": text, "schema": {"type": "string"}}


def _responses(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, type_ in route.answers.items():
        responses[str(status)] = {"description": "Done"}
        if type_ is not None:
            kinds = (route.content, *route.streams)
            schemas = [schema_of[repr(t)] for t in _each(type_)]
            schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
            responses[str(status)]["content"] = {kind: {"schema": schema} for kind in kinds}
    problem = {PROBLEM_TYPE: {"schema": schema_of[repr(ProblemDocument)]}}
    guarded = (401, 403) if _keyed(route) else ()
    for status in sorted({*route.problems, *guarded}):
        responses[str(status)] = {"description": _PROBLEMS[status], "content": problem}
    return responses


class Description:
    """Serves the description and the page that shows it."""

    def __init__(self) -> None:
        self._document = b""
        self._page = files("dispatcher.http").joinpath("docs.html").read_bytes()

    def write(self, routes: list[Route]) -> None:
        """Describe these routes."""
        self._document = msgspec.json.encode(describe(routes))

    async def openapi(self, request: web.Request) -> web.Response:
        """The document."""
        return json_response(self._document)

    async def docs(self, request: web.Request) -> web.Response:
        """The page. It may load nothing from elsewhere."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        headers = {"Content-Security-Policy": policy}
        return web.Response(body=self._page, headers=headers, content_type="text/html", charset="utf-8")
