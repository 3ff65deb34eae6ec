"""Judges manifests by the schemas of Kubernetes and of custom resources.

`validate(manifest, "1.37")` takes any manifest that the chart renders: built-in kinds are judged by the API schemas of
that Kubernetes version, custom ones (Certificate, ExternalSecret, ServiceMonitor, HTTPRoute ...) by their definitions,
both strictly. For another custom resource, add its owner's Go module and file to CRD_MODULES in
harness/cluster/version.py; `make tools` fetches it, and so does the first test that needs it.
"""

import json
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate

from harness.cluster.crd import ensure_schemas
from harness.cluster.progress import Progress

# What was found valid: most objects are the same from one set of values to the next.
_valid: set[tuple[str, str]] = set()


@cache
def _validators() -> dict[tuple[str, str], Any]:
    files = ensure_schemas(Progress()).items()
    return {resource: jsonschema.Draft202012Validator(json.loads(file.read_text())) for resource, file in files}


def validate(manifest: dict[str, Any], version: str) -> None:
    """Raise jsonschema's or kubernetes_validate's error, which says where, if a manifest breaks its schema.

    A kind that neither knows is an error as well.
    """
    judged = (version, json.dumps(manifest, sort_keys=True))
    if judged in _valid:
        return
    if custom := _validators().get((manifest["apiVersion"], manifest["kind"])):
        custom.validate(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)
    _valid.add(judged)
