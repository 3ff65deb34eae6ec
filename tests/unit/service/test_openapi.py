"""The document at /openapi.json is OpenAPI 3.1, leaves nothing out, and says of operations what the types take."""

import json
from itertools import count
from types import SimpleNamespace

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from crdt_service.api.application import Application
from crdt_service.api.errors import CODES
from crdt_service.api.openapi import Specification, describe
from crdt_service.api.operation import EXAMPLES
from crdt_service.api.route import Access
from crdt_service.datatypes.contract import Origin
from crdt_service.datatypes.registry import DATATYPES
from crdt_service.kernel.clock import COUNTER_BITS
from crdt_service.kernel.error import OperationError
from tests.unit.service.double import NullObserver, make_all_routes

ROUTES = make_all_routes()
BY_NAME = {datatype.name: datatype for datatype in DATATYPES}


def document(**options):
    return json.loads(msgspec.json.encode(describe(ROUTES, **options)))


def operations(shown):
    return {operation["operationId"]: operation for path in shown["paths"].values() for operation in path.values()}


def component(name):
    """A validator of a component by the document's own dialect."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    return jsonschema.Draft202012Validator(schema)


def apply_all(datatype, ops):
    ticks = count(1767225600000 << COUNTER_BITS)
    origin = Origin("node-0~1", lambda: next(ticks))
    state = datatype.empty()
    for op in ops:
        state = datatype.join(state, datatype.apply(state, datatype.empty(), msgspec.json.encode(op), origin))
    return state


@pytest.mark.parametrize("is_key_required", [False, True])
def test_the_document_is_openapi(is_key_required):
    assert [] == list(OpenAPIV31SpecValidator(document(is_key_required=is_key_required)).iter_errors())


def test_every_route_is_described_and_nothing_else():
    described = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert {(route.method, route.path) for route in ROUTES} == described
    assert len(ROUTES) == len(operations(document()))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_parameter_and_error_of_a_route_is_described(route):
    operation = operations(document())[route.name]
    described = [parameter["name"] for parameter in operation["parameters"]]
    named = ["key"] if route.path.endswith("{key}") else []
    assert [*named, *(parameter.name for parameter in route.parameters), "X-Request-Id", "traceparent"] == described
    for code in {"internal", "invalid_query", *route.errors}:
        status = CODES[code].status
        assert status in route.statuses or f"`{code}`" in operation["responses"][str(status)]["description"]


def test_an_error_has_the_members_that_are_answered():
    members = document()["components"]["schemas"]["ErrorMembers"]
    assert list(CODES) == members["properties"]["code"]["enum"]
    assert ["code", "message", "remedy", "request_id"] == members["required"]


def test_members_have_the_sentences_of_their_docstrings():
    members = document()["components"]["schemas"]["OwnersView"]["properties"]
    assert "Its name; the key need not exist." == members["key"]["description"]
    assert "Its slot." == members["slot"]["description"]


def test_what_is_not_public_needs_a_key_where_keys_are_required():
    shown = document(is_key_required=True)
    needed = {name: operation.get("security") for name, operation in operations(shown).items()}
    assert {
        route.name: None
        if route.access is Access.PUBLIC
        else [{"bearer": [route.access.value]}, {"header": [route.access.value]}]
        for route in ROUTES
    } == needed
    assert "securitySchemes" not in document()["components"]


@pytest.mark.parametrize("name", BY_NAME)
def test_the_examples_show_each_operation_once_and_the_type_takes_them(name):
    schema = document()["components"]["schemas"]["".join(map(str.capitalize, name.split("_"))) + "Operation"]
    variants = [variant["required"][0] for variant in schema.get("oneOf", [schema])]
    assert set(variants) == {next(iter(op)) for op in EXAMPLES[name]}
    apply_all(BY_NAME[name], EXAMPLES[name])
    validator = component("Write")
    assert [] == [error for op in EXAMPLES[name] for error in validator.iter_errors({"type": name, "op": op})]


def test_examples_are_of_registered_types():
    assert set(BY_NAME) == set(EXAMPLES)


@pytest.mark.parametrize("name", BY_NAME)
def test_document_and_type_agree_on_clearing(name):
    op = {"clear": True}
    takes = BY_NAME[name].can_clear or name == "document"
    assert takes == component("Write").is_valid({"type": name, "op": op})
    if takes:
        apply_all(BY_NAME[name], [op])
    else:
        with pytest.raises(OperationError):
            apply_all(BY_NAME[name], [op])


@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_document_refuses_the_type_refuses(name):
    ops = EXAMPLES[name]
    bad = [{}, [], None, {"nothing": 1}, {**ops[0], "more": 1}, *({member: None} for op in ops for member in op)]
    bad = [op for op in bad if op != {"assign": None}]
    if len({next(iter(op)) for op in ops}) > 1:
        bad.append({member: value for op in ops for member, value in op.items()})
    for op in bad:
        assert not component("Write").is_valid({"type": name, "op": op})
        with pytest.raises(OperationError):
            apply_all(BY_NAME[name], [op])


async def ask(method="GET", headers=()):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"raw_path": b"/openapi.json", "query_string": b"", "method": method, "headers": list(headers)}
    await Application(ROUTES, NullObserver())(scope, None, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each["body"] for each in sent[1:])


async def test_the_page_is_not_sent_again_to_who_has_it():
    status, headers, body = await ask()
    assert (200, b"application/json", document()) == (status, headers[b"content-type"], json.loads(body))
    status, again, body = await ask(headers=[(b"if-none-match", b'"other", ' + headers[b"etag"])])
    assert (304, b"", headers[b"etag"]) == (status, body, again[b"etag"])
    assert not again.keys() & {b"content-type", b"content-length"}
    assert 200 == (await ask(headers=[(b"if-none-match", b'"other"')]))[0]


async def test_the_page_describes_what_is_added_later():
    routes = list(ROUTES)
    page = Specification(lambda: routes).route()
    routes.remove(next(route for route in routes if route.name == "show_cluster"))
    before = await page.answer(SimpleNamespace(values={"if-none-match": ""}))
    routes.append(next(route for route in ROUTES if route.name == "show_cluster"))
    after = await page.answer(SimpleNamespace(values={"if-none-match": ""}))
    assert {"/v1/cluster"} == json.loads(after.body)["paths"].keys() - json.loads(before.body)["paths"].keys()
    assert dict(before.headers)[b"etag"] != dict(after.headers)[b"etag"]
