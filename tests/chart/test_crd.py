"""The judge of custom resources refuses what an API server would."""

import copy
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from harness.cluster.crd import close, read_definition
from tests.chart.crd import validate

_CERTIFICATE = {
    "apiVersion": "cert-manager.io/v1",
    "kind": "Certificate",
    "metadata": {"name": "a", "labels": {"b": "c"}},
    "spec": {"secretName": "a", "dnsNames": ["a"], "issuerRef": {"name": "b"}},
}
_KNOWN = [
    _CERTIFICATE,
    {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": "a"},
        "spec": {"secretStoreRef": {"name": "b"}, "data": [{"secretKey": "c", "remoteRef": {"key": "d"}}]},
    },
    {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "a"},
        "spec": {"groups": [{"name": "b", "rules": [{"alert": "C", "expr": 1}]}]},
    },
    {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "a"},
        "spec": {"selector": {"matchLabels": {"b": "c"}}, "endpoints": [{"port": "d"}]},
    },
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "a"},
        "spec": {"parentRefs": [{"name": "b"}], "rules": [{"backendRefs": [{"name": "c", "port": 8000}]}]},
    },
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "a"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "b"}],
            "validation": {"hostname": "c", "wellKnownCACertificates": "System"},
        },
    },
    {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "ServersTransport",
        "metadata": {"name": "a"},
        "spec": {"serverName": "b"},
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "c"}},
]


@pytest.mark.parametrize("manifest", _KNOWN, ids=lambda manifest: manifest["kind"])
def test_known_kinds_are_accepted_and_their_unknown_fields_refused(manifest: dict[str, Any]):
    validate(manifest, "1.37")
    field = "spec" if "spec" in manifest else "metadata"
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate({**manifest, field: {**manifest[field], "colour": "blue"}}, "1.37")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "secretName"), None),
        (("spec", "dnsNames"), "a"),
        (("spec", "privateKey"), {"algorithm": "DSA"}),
        (("spec", "issuerRef", "colour"), "blue"),
        (("metadata", "labels", "b"), 1),
        (("metadata", "name"), "No_Name"),
        (("colour",), "blue"),
    ],
)
def test_a_broken_certificate_is_refused(path: tuple[str, ...], value: Any):
    broken = copy.deepcopy(_CERTIFICATE)
    *above, last = path
    place: Any = broken
    for name in above:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value

    with pytest.raises(jsonschema.ValidationError):
        validate(broken, "1.37")


def test_an_unknown_kind_is_an_error():
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}}, "1.37")


def test_a_definition_becomes_a_schema_for_each_served_version():
    text = """
    spec:
      group: example.org
      names: {kind: Thing}
      versions:
        - name: v1
          served: true
          schema:
            openAPIV3Schema:
              type: object
              description: A thing.
              properties:
                apiVersion: {type: string}
                kind: {type: string}
                metadata: {type: object}
                spec: {type: object, properties: {size: {x-kubernetes-int-or-string: true}}}
        - {name: v1beta1, served: false, schema: {openAPIV3Schema: {type: object}}}
    """
    [(resource, schema)] = read_definition(text).items()

    assert ("example.org/v1", "Thing") == resource
    assert ["apiVersion", "kind", "metadata"] == schema["required"]
    assert {"anyOf", "x-kubernetes-int-or-string"} == set(schema["properties"]["spec"]["properties"]["size"])


@pytest.mark.parametrize(
    ("schema", "value", "accepted"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"b": 1}, False),
        ({"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True}, {"b": 1}, True),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"b": 1}, True),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"b": "c"}, False),
        ({"type": "string", "nullable": True}, None, True),
        ({"type": "string"}, None, False),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, [{"a": 1}], False),
        ({"x-kubernetes-int-or-string": True}, [], False),
        ({"x-kubernetes-int-or-string": True}, "50%", True),
        ({"type": "object", "properties": {"a": {}}, "oneOf": [{"required": ["a"]}]}, {"a": 1}, True),
    ],
)
def test_a_closed_schema_judges_as_an_api_server_does(schema: dict[str, Any], value: Any, accepted: bool):
    assert accepted == jsonschema.Draft202012Validator(close(schema)).is_valid(value)
