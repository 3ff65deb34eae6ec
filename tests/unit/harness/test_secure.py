"""The API over HTTPS: a real TLS server takes the place of the pod behind the forwarded port."""

import base64
import contextlib
import http.server
import json
import socket
import ssl
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.kube import Kube
from harness.release.service import Service, ServiceError
from loadtests.authority import DAY, Authority
from tests.unit.harness.fake_api import deployed_api

NAMESPACE = "jarvis-system"
HOST = f"jarvis-backend.{NAMESPACE}.svc"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@contextlib.contextmanager
def secured(files, trusted, version=ssl.TLSVersion.TLSv1_3, secret=""):
    """A deployment whose one ready backend pod serves HTTPS with these files; yields (Service, ports asked for).

    What is trusted is in the usual ConfigMap, or in a Secret.
    """
    api = deployed_api()
    asked, sockets = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            url = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            response = api.service.answer(self.command, url.path, parse_qs(url.query), body)
            self.send_response(response.status)
            self.send_header("content-length", str(len(response.text)))
            self.end_headers()
            self.wfile.write(response.text.encode())

        do_GET = do_POST = answer  # noqa: N815 - http.server's names.

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self):
            accepted, address = super().get_request()
            sockets.append(accepted)
            return accepted, address

        def handle_error(self, *_):
            pass  # Clients that refuse the certificate.

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()

    def forward(namespace, pod, port):
        asked.append((namespace, pod, port))
        return socket.create_connection(server.server_address)

    labels = {
        "app.kubernetes.io/name": "jarvis",
        "app.kubernetes.io/instance": "jarvis",
        "app.kubernetes.io/component": "backend",
    }
    for name, ready in (("jarvis-backend-b", "True"), ("jarvis-backend-a", "False")):
        status = {"conditions": [{"type": "Ready", "status": ready}]}
        api.put("pods", NAMESPACE, name, metadata={"labels": labels}, status=status)
    api.put("services", NAMESPACE, "jarvis-backend", spec={"ports": [{"port": 8000, "appProtocol": "https"}]})
    if secret:
        api.objects["deployments", NAMESPACE, "jarvis-backend"]["metadata"]["annotations"] = {
            "jarvis/trust": f"secret/{secret}"
        }
        api.put("secrets", NAMESPACE, secret, data={"ca.crt": base64.b64encode(trusted.encode()).decode()})
    elif trusted is not None:
        api.put("configmaps", NAMESPACE, "jarvis-ca", data={"ca.crt": trusted})
    try:
        with Service(Kube(api.send, "kind-test", forward), NAMESPACE) as service:
            yield service, asked, sockets
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_go_to_a_ready_pod_over_one_connection(authority, version):
    with secured(authority.issue(HOST), authority.file.read_text(), version) as (service, asked, _):
        service.open()
        assert "healthy" == service.read_health().status
        service.write("k", "lww_register", {"assign": 1}, node="jarvis-crdt-0")
        assert 1 == service.read("k", node="jarvis-crdt-1")
        assert service.read("nothing", node="jarvis-crdt-1") is None
        assert [(NAMESPACE, "jarvis-backend-b", 8000)] == asked


def test_the_authority_may_be_in_a_secret_that_the_deployment_names(authority):
    with secured(authority.issue(HOST), authority.file.read_text(), secret="own-tls") as (service, *_):
        assert "healthy" == service.read_health().status
    with (
        secured(authority.issue(HOST), "", secret="own-tls") as (service, *_),
        pytest.raises(ServiceError, match="no Secret own-tls in jarvis-system"),
    ):
        service.read_health()


def test_an_error_of_the_api_is_told(authority):
    with (
        secured(authority.issue(HOST), authority.file.read_text()) as (service, _, _),
        pytest.raises(ServiceError, match="status 503: nowhere does not answer"),
    ):
        service.read("k", node="nowhere")


def test_a_connection_that_has_ended_is_not_used_again(authority):
    with secured(authority.issue(HOST), authority.file.read_text()) as (service, asked, sockets):
        service.read_health()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        assert "healthy" == service.read_health().status
        assert 2 == len(asked)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("another authority", "certificate verify failed"),
        ("another name", "Hostname mismatch"),
        ("expired", "has expired"),
        ("no authority", "no ConfigMap jarvis-ca"),
        ("garbage", "no certificate to trust"),
    ],
)
def test_what_the_clusters_authority_does_not_vouch_for_is_refused(authority, tmp_path, case, says):
    stranger = Authority(tmp_path / "stranger")
    lifetime = -DAY / 24 if case == "expired" else DAY
    files = authority.issue("elsewhere" if case == "another name" else HOST, lifetime=lifetime)
    changed = {"another authority": stranger.file.read_text(), "no authority": None, "garbage": "garbage"}
    trusted = changed.get(case, authority.file.read_text())
    with secured(files, trusted) as (service, _, _), pytest.raises(ServiceError, match=says):
        service.read_health()
