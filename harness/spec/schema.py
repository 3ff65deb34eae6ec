"""The values schema, `charts/jarvis/values.schema.yaml`: the one source of keys, ranges, defaults and sentences."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "charts/jarvis"
SOURCE: Final = CHART / "values.schema.yaml"
Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the schema.

    Attributes:
        path: The names from the root to it.
        node: Its JSON Schema.
        planned: Whether it is accepted and has no effect yet.
    """

    path: tuple[str, ...]
    node: Node
    planned: bool

    @property
    def dotted(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)

    @property
    def is_leaf(self) -> bool:
        """Whether it holds a value of its own rather than more keys."""
        return "default" in self.node


@cache
def read_schema() -> Node:
    """Return the schema as it is written, extension keywords included."""
    schema: Node = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return schema


def walk(node: Node | None = None, path: tuple[str, ...] = (), planned: bool = False) -> Iterator[Key]:
    """Yield every key below a node, parents first, in the order of the file; leaves are not entered."""
    for name, child in (read_schema() if node is None else node).get("properties", {}).items():
        key = Key((*path, name), child, planned or child.get("x-status") == "planned")
        yield key
        if not key.is_leaf:
            yield from walk(child, key.path, key.planned)


def defaults(node: Node | None = None) -> Any:
    """Return the default of a node; an object's is made of its keys'."""
    schema = read_schema() if node is None else node
    if "default" in schema:
        return schema["default"]
    return {name: defaults(child) for name, child in schema["properties"].items()}


def allowed(node: Node) -> str:
    """Say in words which values a node accepts; empty where any of its type will do."""
    if choices := node.get("enum", node.get("examples")):
        return ", ".join(json.dumps(each) if isinstance(each, bool) else str(each) for each in choices if each != "")
    if "minimum" in node:
        return f"{node['minimum']} to {node['maximum']}" + (f" {node['x-unit']}" if "x-unit" in node else "")
    if node.get("type") == "boolean":
        return "true or false"
    if node.get("type") == "array":
        return f"a list of {node['minItems']} to {node['maxItems']}"
    if "maxLength" in node:
        return f"at most {node['maxLength']} characters"
    return f"text like {node['default']}" if node.get("pattern") and node.get("default") else ""
