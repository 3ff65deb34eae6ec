import http.server
import socket
import ssl
import threading
from pathlib import Path

import pytest
from kubernetes.stream import ws_client

from harness.kube import (
    ForbiddenError,
    KubeconfigError,
    RefusedError,
    UnknownContextError,
    UnreachableError,
    connect,
    path_of,
    report_thread,
)
from loadtests.authority import Authority
from tests.unit.harness.fake_api import FakeApi


def write_kubeconfig(path: Path, server: str) -> Path:
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: dead
contexts: [{{name: dead, context: {{cluster: dead, user: dead}}}}]
clusters: [{{name: dead, cluster: {{server: "{server}"}}}}]
users: [{{name: dead, user: {{token: none}}}}]
"""
    )
    return path


def test_paths() -> None:
    assert path_of("pods", "ns", "p") == "/api/v1/namespaces/ns/pods/p"
    assert path_of("statefulsets", "ns") == "/apis/apps/v1/namespaces/ns/statefulsets"
    assert path_of("namespaces", "", "ns") == "/api/v1/namespaces/ns"


def test_what_is_missing_reads_as_none_and_deletes_silently() -> None:
    kube = FakeApi().kube()

    assert kube.read("configmaps", "ns", "nothing") is None
    kube.delete("configmaps", "ns", "nothing")


def test_created_merged_listed_deleted() -> None:
    kube = FakeApi().kube()
    kube.create("configmaps", "ns", {"metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "v", "l": "w"}})

    kube.merge("configmaps", "ns", "a", {"data": {"k": "changed", "l": None}})

    assert [body["data"] for body in kube.read_all("configmaps", "ns", labels="x=1")] == [{"k": "changed"}]
    assert kube.read_all("configmaps", "ns", labels="x=2") == []
    kube.delete("configmaps", "ns", "a")
    assert kube.read("configmaps", "ns", "a") is None


@pytest.mark.parametrize(
    ("status", "error"), [(401, ForbiddenError), (403, ForbiddenError), (409, RefusedError), (500, RefusedError)]
)
def test_refusals_say_what_the_server_said(status: int, error: type[Exception]) -> None:
    api = FakeApi()
    api.refused["pods"] = status

    with pytest.raises(error) as caught:
        api.kube().read_all("pods", "ns")

    assert "kind-test" in str(caught.value) or "pods is refused" in str(caught.value)


def test_a_dead_server_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1")))

    with pytest.raises(UnreachableError, match=r"context dead at https://127\.0\.0\.1:1 does not answer.*refused"):
        connect().request("GET", "/version")


def test_an_unknown_context_names_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1")))

    with pytest.raises(UnknownContextError) as caught:
        connect("elsewhere")

    assert "no context elsewhere" in caught.value.message
    assert caught.value.remedy == "use one of: dead"


def test_no_current_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `kind delete cluster` leaves behind, and many a file of several clusters."""
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1")
    path.write_text(path.read_text().replace("current-context: dead\n", ""))
    monkeypatch.setenv("KUBECONFIG", str(path))

    with pytest.raises(KubeconfigError, match="has no current context"):
        connect()
    assert connect("dead").context == "dead"


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))

    with pytest.raises(KubeconfigError, match="there is no kubeconfig at"):
        connect()


@pytest.mark.parametrize("text", ["", "- a list\n", "{broken", "\x00\x01", "contexts: 3\n", "current-context: x\n"])
def test_a_damaged_kubeconfig(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))

    with pytest.raises((KubeconfigError, UnknownContextError)):
        connect()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients refuse the certificate."""


@pytest.mark.parametrize("is_intermediate", [False, True])
def test_the_authority_of_a_kubeconfig_is_trusted_without_its_root(
    is_intermediate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority", is_intermediate=is_intermediate)
    stranger = Authority(tmp_path / "stranger")
    files = authority.issue("127.0.0.1")
    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    try:
        for trusted, is_read in ((authority, True), (stranger, False)):
            write_kubeconfig(
                tmp_path / "config", f'https://127.0.0.1:{server.server_port}", certificate-authority: "{trusted.file}'
            )
            if is_read:
                assert {} == connect().read("pods", "jarvis-system", "one")
            else:
                with pytest.raises(UnreachableError):
                    connect().read("pods", "jarvis-system", "one")
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize("is_intermediate", [False, True])
def test_a_forwarded_port_trusts_as_requests_do(is_intermediate: bool, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority", is_intermediate=is_intermediate)
    files = authority.issue("127.0.0.1")
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(files.certificate, files.key)
    websocket = ws_client.WebSocket(sslopt={"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": str(authority.file)})
    here, there = socket.socketpair()
    accepting = threading.Thread(target=lambda: listening.wrap_socket(there, server_side=True).close())
    accepting.start()
    with here:
        connected = websocket.sock_opt.sslopt["context"].wrap_socket(here, server_hostname="127.0.0.1")
        assert connected.getpeercert()
        connected.close()
    accepting.join()


def test_several_kubeconfig_files_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{present}")

    assert connect().context == "dead"


@pytest.mark.parametrize(
    ("name", "error", "is_told"),
    [
        ("Kubernetes port forward proxy: 8000", ConnectionResetError(104, "Connection reset by peer"), False),
        ("Kubernetes port forward proxy: 8000", RuntimeError("Unexpected channel number"), True),
        ("another", ConnectionResetError(104, "Connection reset by peer"), True),
    ],
)
def test_a_forwarded_connection_that_ends_is_no_fault_of_its_thread(
    capsys: pytest.CaptureFixture[str], name: str, error: Exception, is_told: bool
) -> None:
    report_thread(threading.ExceptHookArgs((type(error), error, None, threading.Thread(name=name))))

    assert is_told == (str(error) in capsys.readouterr().err)
