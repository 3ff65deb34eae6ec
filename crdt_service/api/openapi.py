"""``GET /openapi.json``: the table of routes as OpenAPI 3.1."""

import hashlib
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from crdt_service.api.call import Call, Response
from crdt_service.api.errors import CODES
from crdt_service.api.operation import (
    REFERENCE,
    Schema,
    allow_any,
    describe_operations,
    describe_writes,
    summarize,
)
from crdt_service.api.parameter import Parameter
from crdt_service.api.route import Access, Route
from crdt_service.kernel.ident import KEY_BYTES_MAX

# Of the API's paths, which begin with it; what is added to it leaves it.
VERSION = "1"
_ABOUT = (
    "The shared, conflict-free state of agents. A key has one of the data types below and is kept by several nodes; "
    "any backend will do. Every error has one shape. Codes are stable, messages are not."
)
_JSON = "application/json"
_SCHEMES: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
}
_REQUEST_ID = "X-Request-Id"
# What any caller may be told who has to be allowed.
_REFUSALS = {401, 403, 429}
_IN_PATH: Mapping[str, Schema] = {
    "key": {
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
        "description": f"The key: 1 to {KEY_BYTES_MAX} bytes of UTF-8, percent-encoded.",
        "example": "visits",
    }
}
_HEADERS: Mapping[str, Schema] = {
    _REQUEST_ID: {
        "schema": {"type": "string"},
        "description": "The request's own id if it has a good one, else a new one.",
    },
    "Allow": {"schema": {"type": "string"}, "description": "The methods of the page."},
    "ETag": {"schema": {"type": "string"}, "description": "Stands for what is shown; another one for anything else."},
    "Idempotency-Replayed": {
        "schema": {"const": "true"},
        "description": "The write had been applied before, and was not again.",
    },
    "WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to authenticate."},
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "description": "Where limits are on: requests that may come at once, and in how many seconds all are back.",
    },
    "RateLimit": {
        "schema": {"type": "string"},
        "description": "Where limits are on: how many are left, and in how many seconds all are back.",
    },
    "Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "After how many seconds to try again."},
}
# Malformed ones are not refused.
_EVERYWHERE: Sequence[Schema] = [
    {"name": name, "in": "header", "description": sentence, "schema": {"type": "string"}}
    for name, sentence in (
        (_REQUEST_ID, "Names the request: 1 to 128 printable ASCII characters."),
        ("traceparent", "The caller's span, as W3C Trace Context has it."),
    )
]
# By a parameter of the request, what is answered to it.
_HEADERS_OF = {"if-match": "ETag", "if-none-match": "ETag", "idempotency-key": "Idempotency-Replayed"}

_OF_STATUS: Mapping[int, Sequence[str]] = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}


class ErrorMembers(msgspec.Struct):
    """What went wrong.

    Attributes:
        code: Stable; one of those that the API documents.
        message: For people; may change.
        remedy: What to do about it.
        request_id: Names the request in the logs.
    """

    code: str
    message: str
    remedy: str
    request_id: str


class Error(msgspec.Struct):
    """Every error that the API answers with."""

    error: ErrorMembers


def describe(routes: Iterable[Route], *, is_key_required: bool = False) -> Schema:
    """Return the OpenAPI document of routes.

    Args:
        routes: What is served.
        is_key_required: Callers of what is not public need an API key.
    """
    routes = list(routes)
    shown = [part for route in routes for part in (route.body, route.result) if part is not None]
    references, schemas = msgspec.json.schema_components(
        [*shown, Error], schema_hook=allow_any, ref_template=REFERENCE + "{name}"
    )
    by_type = dict(zip(map(id, shown), references, strict=False))
    components = describe_operations()
    for name, schema in schemas.items():
        _explain(schema)
        # In a batch both may be left out, and a bad one is an item's error and none of the request's.
        is_write = {"type", "op"} <= {*schema.get("required", ())}
        components |= describe_writes(name, schema) if is_write else {name: schema}
    components["ErrorMembers"]["properties"]["code"]["enum"] = list(CODES)
    paths: dict[str, Schema] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method.lower()] = _describe_route(route, by_type, is_key_required)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Jarvis", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "examples": {code: {"value": _example(code)} for code in CODES},
            **({"securitySchemes": _SCHEMES} if is_key_required else {}),
        },
    }


def _describe_route(route: Route, by_type: Mapping[int, Schema], is_key_required: bool) -> Schema:
    described: Schema = {
        "operationId": route.name,
        "summary": route.sentence,
        "tags": [_tag(route.path)],
        "parameters": [
            *(_describe_name(name) for name in re.findall(r"\{(\w+)\}", route.path)),
            *map(_describe_parameter, route.parameters),
            *_EVERYWHERE,
        ],
        "responses": _describe_responses(route, by_type),
    }
    if route.body is not None:
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": by_type[id(route.body)]}}}
    if is_key_required and route.access is not Access.PUBLIC:
        described["security"] = [{scheme: [route.access.value]} for scheme in _SCHEMES]
    return described


def _describe_name(name: str) -> Schema:
    about = _IN_PATH.get(name, {"schema": {"type": "string", "minLength": 1}})
    return {"name": name, "in": "path", "required": True, **about}


def _describe_parameter(parameter: Parameter) -> Schema:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": _sentence(parameter.sentence),
        "schema": parameter.schema,
    }


def _describe_responses(route: Route, by_type: Mapping[int, Schema]) -> Schema:
    content = {route.media: {"schema": {"type": "string"} if route.result is None else by_type[id(route.result)]}}
    given = {parameter.name for parameter in route.parameters}
    limits = [] if route.access is Access.PUBLIC else ["RateLimit-Policy", "RateLimit"]
    echoed = limits + sorted({name for parameter, name in _HEADERS_OF.items() if parameter in given})
    responses: Schema = {}
    for status in route.statuses:
        responses[str(status)] = {"description": "As asked.", "headers": _headers(*echoed), "content": content}
    if route.method == "GET" and "if-none-match" in given:
        responses["304"] = {"description": "It is still what the client has.", "headers": _headers(*echoed)}
    for status, codes in _group(route).items():
        refusal: Schema = {
            "description": "\n".join(f"- `{code}`: {CODES[code].when}" for code in codes),
            "headers": _headers(*limits, *_OF_STATUS.get(status, ())),
            "content": {
                _JSON: {
                    "schema": {"$ref": REFERENCE + "Error"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
                }
            },
        }
        # A status that also shows the result, as that of a health check may, has that shape.
        responses.setdefault(str(status), refusal)
    return dict(sorted(responses.items()))


def _group(route: Route) -> dict[int, list[str]]:
    """Return the codes that a route may answer with by their status."""
    codes = {*route.errors, "internal", "invalid_query"}
    if any(parameter.where == "header" for parameter in route.parameters):
        codes.add("invalid_header")
    if route.body is not None:
        codes |= {"invalid_body", "body_too_large", "unsupported_encoding"}
    if route.access is not Access.PUBLIC:
        codes.add("overloaded")
        codes |= {name for name, code in CODES.items() if code.status in _REFUSALS}
    grouped: dict[int, list[str]] = defaultdict(list)
    for name, code in CODES.items():
        if name in codes:
            grouped[code.status].append(name)
    return grouped


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (_REQUEST_ID, *names)}


def _example(code: str) -> Schema:
    example = {"code": code, "message": CODES[code].when, "remedy": "what to do about it", "request_id": "agent-7/1"}
    return {"error": example}


def _explain(schema: Schema) -> None:
    """Give a struct's schema the sentences of its docstring: the first, and one for each member."""
    text = schema.get("description", "")
    if not text:
        return
    schema["description"] = summarize(text)
    for name, sentence in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)$", inspect.cleandoc(text), re.MULTILINE):
        member = schema.get("properties", {}).get(name)
        if member is not None:
            schema["properties"][name] = {**member, "description": " ".join(sentence.split())}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _tag(path: str) -> str:
    return path.split("/")[2] if path.startswith("/v1/") else "operation"


class Specification:
    """The page.

    Args:
        find_routes: Returns what is described; it may be more later.
        is_key_required: As in `describe`.
    """

    def __init__(self, find_routes: Callable[[], Sequence[Route]], *, is_key_required: bool = False) -> None:
        self._find_routes = find_routes
        self._is_key_required = is_key_required
        self._described: list[Route] = []
        self._body = b""
        self._tag = b""

    def route(self) -> Route:
        """Return the page's route."""
        known = Parameter(
            "if-none-match",
            "header",
            "answer 304 without the document if it has this ETag",
            {"type": "string"},
            "ETags",
            "",
            str,
        )
        return Route(
            "GET",
            "/openapi.json",
            "show_openapi",
            Access.PUBLIC,
            "Show this document.",
            self.show,
            (known,),
            result=dict[str, Any],
            answers_per_second=20,
        )

    async def show(self, call: Call) -> Response:
        """Answer with the document, or with nothing where the client has it."""
        routes = list(self._find_routes())
        if routes != self._described:
            self._body = msgspec.json.encode(describe(routes, is_key_required=self._is_key_required))
            self._tag = b'"' + hashlib.blake2b(self._body, digest_size=12).hexdigest().encode() + b'"'
            self._described = routes
        headers = [(b"etag", self._tag), (b"cache-control", b"no-cache")]
        if self._tag.decode() in call.values["if-none-match"]:
            return Response(304, headers=headers)
        return Response(200, self._body, headers=headers)
