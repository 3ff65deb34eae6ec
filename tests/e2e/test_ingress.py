"""The cluster answers an HTTPS Ingress of class contour, with the Ingress' own certificate."""

import base64
import datetime
import http.client
import json
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.cluster import contour
from harness.cluster.manager import Cluster, find_cluster, kubectl, read_objects
from harness.poll import Done, Pending, wait_until

pytestmark = pytest.mark.e2e
_HOST = "metrics.example"
_NAME = "jarvis-e2e-ingress"
# Pods and a Service that every cluster has, and that answer in plain HTTP.
_NAMESPACE, _SERVICE, _PORT = "kube-system", "kube-dns", 9153


def _certificate() -> tuple[bytes, bytes]:
    """A key and a certificate that it signed itself, both in PEM, valid for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form), certificate.public_bytes(serialization.Encoding.PEM)


def _objects(key: bytes, certificate: bytes) -> str:
    metadata = {"name": _NAME, "namespace": _NAMESPACE}
    data = {"tls.key": base64.b64encode(key).decode(), "tls.crt": base64.b64encode(certificate).decode()}
    backend = {"service": {"name": _SERVICE, "port": {"number": _PORT}}}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata,
        "spec": {
            "ingressClassName": contour.INGRESS_CLASS,
            "tls": [{"hosts": [_HOST], "secretName": _NAME}],
            "rules": [{"host": _HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
        },
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [secret, ingress]})


def _get(address: str, trusted: bytes) -> int:
    """The status that a client gets who trusts this certificate alone."""
    context = ssl.create_default_context(cadata=trusted.decode())
    with (
        socket.create_connection((address, contour.HTTPS_NODE_PORT), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=_HOST) as secured,
    ):
        connection = http.client.HTTPConnection(_HOST, timeout=10)
        connection.sock = secured
        connection.request("GET", "/metrics")
        with connection.getresponse() as response:
            return response.status


def _address(cluster: Cluster) -> str:
    addresses = read_objects(cluster, "nodes")[0]["status"]["addresses"]
    return next(item["address"] for item in addresses if item["type"] == "InternalIP")


def test_an_ingress_is_answered_over_https_with_its_own_certificate() -> None:
    cluster = find_cluster()
    assert cluster, "no cluster runs: `make up` brings it up"
    key, certificate = _certificate()
    address = _address(cluster)
    kubectl(cluster, "apply", "--filename", "-", input=_objects(key, certificate))
    try:

        def look() -> Done[int] | Pending:
            try:
                status = _get(address, certificate)
            except OSError as error:
                return Pending(str(error))
            return Done(status) if status == http.HTTPStatus.OK else Pending(f"status {status}")

        assert 200 == wait_until(look, what="an answer through the Ingress", deadline_seconds=180)
        _, another = _certificate()
        with pytest.raises(ssl.SSLCertVerificationError):
            _get(address, another)
    finally:
        kubectl(cluster, "delete", "ingress,secret", _NAME, "--namespace", _NAMESPACE)
