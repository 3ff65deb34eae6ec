"""The chart's own command lines, with Secrets as a person or cert-manager makes them, form a cluster over TLS."""

import base64
import datetime
import ipaddress
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.cluster.tool import find_tool
from harness.process import run
from loadtests.cluster import LoopbackCluster, command, environment, free_port
from tests.chart.conftest import CHART, find_pods

_SECRETS = {"cluster": "my-cluster", "encryption": "my-encryption", "api_keys": "my-api-keys"}
_VALUES = {
    "security": {
        "secrets": {"source": "existing", "names": {**_SECRETS, "admin_token": "my-token"}},
        "certificates": {"source": "cert_manager"},
    },
    "deployment": {"environment": "development"},
    "crdt": {"sync_interval": 1, "gossip_protocol": {"interval": 1}},
}
_ENTRIES = {"cert": "tls.crt", "key": "tls.key", "ca": "ca.crt"}
_PURPOSES = {"server auth": ExtendedKeyUsageOID.SERVER_AUTH, "client auth": ExtendedKeyUsageOID.CLIENT_AUTH}
Manifest = dict[str, Any]


class _Issued:
    """What cert-manager makes of a Certificate: a key and a certificate of an issuer, or one that signs itself."""

    def __init__(self, spec: Manifest, issuer: "_Issued | None" = None) -> None:
        assert ("ECDSA", 256, "PKCS8") == tuple(spec["privateKey"][name] for name in ("algorithm", "size", "encoding"))
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spec["commonName"])])
        usages, now = set(spec["usages"]), datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(hours=int(spec["duration"].removesuffix("h"))))
            .add_extension(x509.BasicConstraints(ca=spec.get("isCA", False), path_length=None), critical=True)
            .add_extension(_key_usage(usages), critical=True)
        )
        names = [x509.DNSName(name) for name in spec.get("dnsNames", [])]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in spec.get("ipAddresses", [])]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes := [_PURPOSES[usage] for usage in _PURPOSES if usage in usages]:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    def secret(self, issuer: "_Issued") -> dict[str, bytes]:
        """The entries of the Secret, as cert-manager calls them."""
        return {
            "tls.crt": self.certificate.public_bytes(Encoding.PEM),
            "tls.key": self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "ca.crt": issuer.certificate.public_bytes(Encoding.PEM),
        }


def _key_usage(usages: set[str]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital signature" in usages,
        key_cert_sign="cert sign" in usages,
        crl_sign="crl sign" in usages,
        **dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        ),
        decipher_only=False,
    )


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    arguments = [str(find_tool("helm")), "template", "jarvis", str(CHART), "--namespace", "jarvis-system"]
    done = run([*arguments, "--values", "-"], input=json.dumps(_VALUES))
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


@pytest.fixture(scope="module")
def folder(manifests: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each Secret and ConfigMap that pods mount, with a file for each entry."""
    folder = tmp_path_factory.mktemp("mounted")
    specs = {body["metadata"]["name"]: body["spec"] for body in manifests if body["kind"] == "Certificate"}
    authority = _Issued(specs.pop("jarvis-authority"))
    objects = {spec["secretName"]: _Issued(spec, authority).secret(authority) for spec in specs.values()}
    # As docs/security.md makes them, down to the line's end.
    objects["my-cluster"] = {"cluster-secret": os.urandom(32).hex().encode() + b"\n"}
    objects["my-encryption"] = {"encryption-key": base64.b64encode(os.urandom(32)) + b"\n"}
    keys, created = folder / "api-keys.json", ("create", "--name", "admin", "--scope", "admin")
    done = subprocess.run(
        command("api-key", created[0], str(keys), *created[1:]), env=environment(), capture_output=True, check=True
    )
    objects["my-api-keys"] = {"api-keys.json": keys.read_bytes()}
    objects["my-token"] = {"token": done.stdout}
    [config] = [body for body in manifests if body["metadata"]["name"] == "jarvis-config"]
    objects["jarvis-config"] = {name: text.encode() for name, text in config["data"].items()}
    for name, entries in objects.items():
        (folder / name).mkdir()
        for entry, data in entries.items():
            (folder / name / entry).write_bytes(data)
    return folder


class _Cluster(LoopbackCluster):
    """Runs what pods would run, but for the addresses of loopback."""

    def __init__(self, directory: Path, manifests: list[Manifest], folder: Path) -> None:
        super().__init__(directory)
        self._manifests, self._folder = manifests, folder
        self.node_ids = self.peers = [f"jarvis-crdt-{number}" for number in range(3)]
        self.ports = {name: (free_port(), free_port()) for name in self.node_ids}
        self.trust = ssl.create_default_context(cafile=str(folder / "jarvis-api-tls/ca.crt"))
        self.url = f"https://127.0.0.1:{self.api_port}"
        self.client = httpx.Client(timeout=15, verify=self.trust)
        self.client.headers["authorization"] = f"Bearer {(folder / 'my-token/token').read_text().strip()}"

    def rendered(self, kind: str, name: str, **variables: str) -> list[str]:
        """A pod's command line, with the folders of its volumes in place of what is mounted."""
        body = next(body for body in self._manifests if (body["kind"], body["metadata"]["name"]) == (kind, name))
        [pod] = find_pods(body)
        [container] = pod["containers"]
        sources = {
            volume["name"]: volume["secret"]["secretName"] if "secret" in volume else volume["configMap"]["name"]
            for volume in pod["volumes"]
        }
        arguments = []
        for written in container["args"]:
            flag, equals, value = written.partition("=")
            for variable, given in variables.items():
                value = value.replace(f"$({variable})", given)
            for mount in container["volumeMounts"]:
                if f"{value}/".startswith(f"{mount['mountPath']}/") and mount["name"] in sources:
                    value = f"{self._folder / sources[mount['name']]}{value.removeprefix(mount['mountPath'])}"
                    break
            arguments.append(f"{flag}{equals}{value}")
        return arguments

    def node_arguments(self, name: str, peers: Iterable[str] | None = None) -> list[str]:
        peer_port, metrics_port = self.ports[name]
        rendered = self.rendered("StatefulSet", "jarvis-crdt", POD_NAME=name, POD_IP="127.0.0.1", ZONE="zone-a")
        return [
            *rendered,
            f"--data-dir={self.directory / name}",
            *(f"--listen=127.0.0.1:{peer_port}", f"--advertise=127.0.0.1:{peer_port}"),
            f"--metrics-listen=127.0.0.1:{metrics_port}",
            *self.peer_arguments(peers),
        ]

    def start_backend(self, name: str = "backend", port: int | None = None) -> None:
        listen = f"--listen=127.0.0.1:{self.api_port if port is None else port}"
        rendered = self.rendered("Deployment", "jarvis-backend", ZONE="zone-a")
        self._start(name, [*rendered, listen, "--linger=0", *self.peer_arguments()])


@pytest.fixture(scope="module")
def cluster(manifests: list[Manifest], folder: Path, tmp_path_factory: pytest.TempPathFactory):
    with _Cluster(tmp_path_factory.mktemp("cluster"), manifests, folder) as running:
        yield running


def test_it_keeps_what_is_written_through_the_api(cluster: _Cluster):
    written = cluster.post("/v1/keys/a?concern=all", {"type": "pn_counter", "op": {"increment": 2}})

    assert 2 == written["value"]
    assert [2, 2, 2] == [cluster.get(f"/v1/keys/a?node={node}")["value"] for node in cluster.node_ids]
    assert b"increment" not in b"".join(
        file.read_bytes() for file in (cluster.directory / "jarvis-crdt-0").rglob("*") if file.is_file()
    )


@pytest.mark.parametrize("name", ["jarvis-backend.jarvis-system.svc", "localhost", "127.0.0.1"])
def test_clients_verify_the_api_by_the_names_of_the_service(cluster: _Cluster, name: str):
    with (
        socket.create_connection(("127.0.0.1", cluster.api_port)) as plain,
        cluster.trust.wrap_socket(plain, server_hostname=name) as secured,
    ):
        assert secured.version() in {"TLSv1.2", "TLSv1.3"}


def test_the_job_before_a_resize_is_let_in_as_operator(cluster: _Cluster):
    arguments = cluster.rendered("Job", "jarvis-resize-hook")
    command_line = [*arguments, f"--peer=127.0.0.1:{cluster.ports['jarvis-crdt-0'][0]}"]
    done = subprocess.run(command(*command_line), env=environment(), capture_output=True, text=True, check=False)

    assert (0, True) == (done.returncode, "nothing is to be changed" in done.stderr), done.stderr


def test_the_certificate_of_the_api_lets_nobody_in_as_a_peer(cluster: _Cluster, folder: Path):
    files = [f"--tls-{flag}={folder / 'jarvis-api-tls' / entry}" for flag, entry in _ENTRIES.items()]
    arguments = [*cluster.rendered("Job", "jarvis-resize-hook"), *files]
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "none of its DNS names" in done.stderr or "purpose" in done.stderr, done.stderr
