"""The JSON schema of what can be written: the operations of every data type, derived from what reads them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from crdt_service.datatypes.contract import Datatype
from crdt_service.datatypes.map import Map
from crdt_service.datatypes.registry import DATATYPES

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/"
# One of each kind, as they may follow each other on one key.
EXAMPLES: Mapping[str, Sequence[Schema]] = {
    "pn_counter": [{"increment": 3}, {"decrement": 3}],
    "lww_register": [{"assign": {"status": "ready"}}],
    "aw_set": [{"add": "x"}, {"remove": "x"}],
    "g_counter": [{"increment": 3}],
    "g_set": [{"add": "x"}],
    "ew_flag": [{"enable": True}, {"disable": True}],
    "mv_register": [{"assign": 30}],
    "map": [{"update": {"visits": {"type": "pn_counter", "op": {"increment": 1}}}}, {"remove": "visits"}],
    "time_series": [{"append": {"at": 1767225600000, "value": 0.5}}],
    "graph": [
        {"add_vertex": "a"},
        {"add_edge": ["a", "a"]},
        {"remove_edge": ["a", "a"]},
        {"remove_vertex": "a"},
    ],
    "workflow": [
        {"create": {"states": ["open", "done"], "initial": "open", "transitions": [["open", "done"]]}},
        {"transition": {"to": "done"}},
    ],
    "document": [
        {"append": {"text": "title", "value": "Hi"}},
        {"insert": {"text": "title", "at": 0, "value": "Hi"}},
        {"insert": {"list": "todo", "at": 0, "value": {"what": "write"}}},
        {"delete": {"text": "title", "at": 0, "count": 1}},
        {"set": {"path": ["a", "b"], "value": 1}},
        {"remove": {"path": ["a"]}},
        {"clear": True},
    ],
}
_CLEAR = "ClearOperation"


def describe_operations() -> dict[str, Schema]:
    """Return the schema of every type's operations by its component's name, and that of clearing."""
    schemas = {_CLEAR: {**_object({"clear": {"const": True}}), "description": "Empties the key."}}
    for datatype in DATATYPES:
        schemas[_name(datatype.name)] = _describe(datatype)
    return schemas


def describe_writes(name: str, write: Schema) -> dict[str, Schema]:
    """Return the schemas that a struct with `type` and `op` stands for: one of each type, and the choice of them.

    Args:
        name: Of the struct's component.
        write: Its schema, in which any operation goes with any type.
    """
    schemas: dict[str, Schema] = {}
    mapping = {}
    for datatype in DATATYPES:
        part = _camel(datatype.name) + name
        operation: Schema = {"$ref": REFERENCE + _name(datatype.name)}
        if datatype.can_clear:
            operation = {"oneOf": [operation, {"$ref": REFERENCE + _CLEAR}]}
        properties = {**write["properties"], "type": {"const": datatype.name}, "op": operation}
        schemas[part] = {**write, "title": part, "properties": properties}
        mapping[datatype.name] = REFERENCE + part
    schemas[name] = {
        "description": write["description"],
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return schemas


def allow_any(kind: type) -> Schema:
    """Return the schema of a type that msgspec knows none of, which is any JSON value.

    Raises:
        NotImplementedError: It is something else.
    """
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _describe(datatype: Datatype[Any]) -> Schema:
    _, components = msgspec.json.schema_components(
        (datatype.operation,), schema_hook=allow_any, ref_template=REFERENCE + "{name}"
    )
    whole = components[datatype.operation.__name__]
    # Of several members exactly one is given; a flag is only ever raised.
    variants = [
        _object({name: {"const": True} if member.get("type") == "boolean" else _inline(member, components)})
        for name, member in whole["properties"].items()
    ]
    if isinstance(datatype, Map):
        variants[0]["properties"]["update"]["additionalProperties"] = _describe_fields(datatype.field_types)
    return {
        "title": _name(datatype.name),
        "description": summarize(datatype.__doc__),
        **({"oneOf": variants} if len(variants) > 1 else variants[0]),
        "examples": list(EXAMPLES[datatype.name]),
    }


def _describe_fields(names: Iterable[str]) -> Schema:
    return {
        "oneOf": [_object({"type": {"const": name}, "op": {"$ref": REFERENCE + _name(name)}}) for name in names],
    }


def _inline(schema: Any, components: Mapping[str, Schema]) -> Any:
    """Return a schema without references and without the names of private structs."""
    if isinstance(schema, list):
        return [_inline(part, components) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(components[schema["$ref"].removeprefix(REFERENCE)], components)
    return {
        name: {member: _inline(part, components) for member, part in value.items()}
        if name == "properties"
        else _inline(value, components)
        for name, value in schema.items()
        if name != "title"
    }


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _name(type_name: str) -> str:
    return _camel(type_name) + "Operation"


def _camel(type_name: str) -> str:
    return "".join(part.capitalize() for part in type_name.split("_"))


def summarize(docstring: str | None) -> str:
    """Return the first paragraph of a docstring as one line of Markdown."""
    first = (docstring or "").strip().partition("\n\n")[0]
    return " ".join(first.replace("``", "`").split())
