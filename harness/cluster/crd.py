"""JSON Schemas of the custom resources that the chart can render, made of the definitions in their owners' Go modules.

Nothing of them is kept in this repository: the modules are fetched once, and what they say is cached.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from harness.cluster import version
from harness.cluster.cache import cached, content_key
from harness.cluster.progress import Progress
from harness.cluster.tool import download_module

Resource = tuple[str, str]
Schema = dict[str, Any]
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
# A definition leaves metadata to the API server; this is what manifests use of it.
_METADATA: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"},
        "namespace": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
    "additionalProperties": False,
}


def ensure_schemas(progress: Progress) -> Mapping[Resource, Path]:
    """Return the file of each custom resource's JSON Schema by its apiVersion and kind, fetching what is missing.

    A schema is as strict as an API server that is asked to validate strictly: unknown fields are refused. Rules in CEL
    (`x-kubernetes-validations`) are not judged.

    Raises:
        Failure: There is no Go, or a module cannot be fetched.
    """
    files = {}
    for module, sources in version.CRD_MODULES.items():
        for file in _ensure_module(module, sources, progress).iterdir():
            api_version, kind = json.loads(file.read_text(encoding="utf-8"))["x-resource"]
            files[api_version, kind] = file
    return files


def _ensure_module(module: str, sources: Sequence[str], progress: Progress) -> Path:
    def build(scratch: Path) -> None:
        folder = download_module(module)
        for source in sources:
            for (api_version, kind), schema in read_definition((folder / source).read_text(encoding="utf-8")).items():
                target = scratch / f"{api_version.replace('/', '_')}_{kind}.json"
                target.write_text(json.dumps({"x-resource": [api_version, kind], **schema}), encoding="utf-8")

    name = module.partition("@")[0].rpartition("/")[2]
    step = progress.step(f"fetching the definitions of {module}", 10)
    return cached(f"crd-{name}", content_key(module, *sources, Path(__file__)), build, step)


def read_definition(text: str) -> dict[Resource, Schema]:
    """Return the JSON Schema of each served version of a CustomResourceDefinition in YAML."""
    definition = yaml.safe_load(text)["spec"]
    group, kind = definition["group"], definition["names"]["kind"]
    schemas = {}
    for each in definition["versions"]:
        if each["served"]:
            schema = close(each["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = _METADATA
            schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
            schemas[f"{group}/{each['name']}", kind] = schema
    return schemas


def close(schema: Mapping[str, Any]) -> Schema:
    """Return a definition's OpenAPI schema as JSON Schema that refuses what it does not name."""
    closed = {name: _KEYWORDS.get(name, _keep)(value) for name, value in schema.items() if name != "description"}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], **closed}
    if schema.get("nullable") and "type" in schema:
        closed["type"] = [schema["type"], "null"]
    is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in schema and "type" in schema and not is_open:
        closed.setdefault("additionalProperties", False)
    return closed


def _keep(value: Any) -> Any:
    return value


def _close_each(schemas: Any) -> Any:
    if isinstance(schemas, list):
        return [close(each) for each in schemas]
    return {name: close(each) for name, each in schemas.items()}


def _close_one(schema: Any) -> Any:
    return close(schema) if isinstance(schema, dict) else schema


_KEYWORDS: Final = {
    **dict.fromkeys(("properties", "anyOf", "allOf", "oneOf"), _close_each),
    **dict.fromkeys(("items", "additionalProperties", "not"), _close_one),
}
