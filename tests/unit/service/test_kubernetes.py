import base64
import http.client
import json
import ssl

import pytest

from crdt_service.access.keyring import Keyring
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.key_command import draw_token, install_keys
from crdt_service.net.kubernetes import (
    CONFIG_MAP,
    SECRET,
    Kubernetes,
    create_empty,
    create_secret,
    create_volume,
)


class FakeConnection:
    """Answers like the API server; keeps what it was asked."""

    answer = (201, b"{}")
    asked = ()

    def __init__(self, host, port, **_):
        self.status, self.body = self.answer

    def request(self, *asked):
        if not self.status:
            raise ConnectionRefusedError("refused")
        FakeConnection.asked = asked

    def getresponse(self):
        return self

    def read(self):
        return self.body

    def close(self):
        pass


@pytest.fixture
def account(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("token\n")
    (tmp_path / "ca.crt").write_text("")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    monkeypatch.setattr(http.client, "HTTPSConnection", FakeConnection)
    return tmp_path


def create(account, status, body=b"{}"):
    FakeConnection.answer = (status, body)
    return create_secret(Kubernetes("jarvis-system", account), "jarvis-cluster", "cluster-secret")


def test_a_missing_secret_is_created_with_32_random_bytes(account):
    assert create(account, 201) == "secret jarvis-system/jarvis-cluster created"
    method, path, body, headers = FakeConnection.asked
    assert (method, path) == ("POST", "/api/v1/namespaces/jarvis-system/secrets")
    assert headers["Authorization"] == "Bearer token"
    value = base64.b64decode(json.loads(body)["data"]["cluster-secret"])
    assert len(bytes.fromhex(value.decode())) == 32


def test_an_existing_secret_is_kept(account):
    assert create(account, 409) == "secret jarvis-system/jarvis-cluster exists and is kept"


def claim(account, status, storage_class="standard"):
    FakeConnection.answer = (status, b"{}")
    return create_volume(
        Kubernetes("jarvis-system", account),
        "jarvis-backup",
        size="1Gi",
        storage_class=storage_class,
        release="jarvis",
        component="backup",
    )


def test_a_volume_is_claimed_once_and_kept(account):
    assert "persistentvolumeclaim jarvis-system/jarvis-backup created" == claim(account, 201)
    method, path, body, _ = FakeConnection.asked
    assert ("POST", "/api/v1/namespaces/jarvis-system/persistentvolumeclaims") == (method, path)
    made = json.loads(body)
    assert {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "standard",
    } == made["spec"]
    labels = {"name": "jarvis", "instance": "jarvis", "component": "backup"}
    assert {f"app.kubernetes.io/{name}": value for name, value in labels.items()} == made["metadata"]["labels"]
    claim(account, 201, "")
    assert "storageClassName" not in json.loads(FakeConnection.asked[2])["spec"]
    assert "persistentvolumeclaim jarvis-system/jarvis-backup exists and is kept" == claim(account, 409)
    with pytest.raises(ServiceError):
        claim(account, 403)


@pytest.mark.parametrize(("status", "code"), [(403, "kubernetes_refused"), (0, "kubernetes_unreachable")])
def test_a_refusal_or_an_unreachable_api_is_told(account, status, code):
    with pytest.raises(ServiceError) as failed:
        create(account, status, b"secrets is forbidden")
    assert failed.value.code == code


def test_outside_a_pod_it_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no service account"):
        Kubernetes("n", tmp_path)


class Namespace:
    """The Secrets of a namespace, each as the API server would keep it; breaks off before a write if told so."""

    def __init__(self):
        self.objects = {}
        self.asked = []
        self.writes_left = 99

    def request(self, method, path, body, headers):
        name = path.rpartition("/")[2]
        self.asked.append((method, name))
        if method == "GET":
            found = self.objects.get(name)
            self.answer = (200, json.dumps(found).encode()) if found else (404, b"{}")
            return
        if not self.writes_left:
            raise ConnectionResetError("reset")
        made = json.loads(body)
        name = made["metadata"]["name"]
        if method == "PUT":
            is_current = self.objects[name]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            self.answer = (200, body.encode()) if is_current else (409, b"{}")
        else:
            self.answer = (409, b"{}") if name in self.objects else (201, body.encode())
        if path.endswith("?dryRun=All"):
            return
        self.writes_left -= 1
        if self.answer[0] != 409:
            made["metadata"]["resourceVersion"] = str(self.writes_left)
            self.objects[name] = made

    def getresponse(self):
        status, body = self.answer
        return type("Response", (), {"status": status, "read": lambda _: body})()

    def close(self):
        pass

    def entry(self, name, key):
        return base64.b64decode(self.objects[name]["data"][key])


@pytest.fixture
def namespace(account, monkeypatch):
    namespace = Namespace()
    monkeypatch.setattr(http.client, "HTTPSConnection", lambda *_, **__: namespace)
    return namespace


def draw(account):
    return draw_token(Kubernetes("jarvis-system", account), "keys", "token")


def install(account):
    return install_keys(Kubernetes("jarvis-system", account), "keys", "token")


def admits(namespace, path):
    path.write_bytes(namespace.entry("keys", "api-keys.json"))
    return Keyring(path, float).authenticate(namespace.entry("token", "token")).name


def test_the_first_key_is_hashed_in_one_secret_and_plain_in_another(account, namespace, tmp_path):
    assert draw(account) == "secrets token and keys created"
    assert {} == namespace.objects["keys"]["data"]
    assert install(account) == "secret keys filled"
    assert admits(namespace, tmp_path / "keys") == "admin"
    assert namespace.entry("token", "token") not in namespace.entry("keys", "api-keys.json")


def test_keys_are_kept_on_upgrade_though_the_token_was_taken_away(account, namespace):
    draw(account)
    install(account)
    before = dict(namespace.objects)
    del namespace.objects["token"]
    assert draw(account) == install(account) == "secret keys exists and is kept"
    assert namespace.objects == {"keys": before["keys"]}


def test_who_draws_reads_nothing_and_who_fills_creates_nothing(account, namespace):
    draw(account)
    create_empty(Kubernetes("jarvis-system", account), SECRET, "tls")
    assert {"POST"} == {method for method, _ in namespace.asked}
    namespace.asked.clear()
    install(account)
    assert [("GET", "keys"), ("GET", "token"), ("PUT", "keys")] == namespace.asked


def test_an_attempt_that_was_cut_off_is_completed(account, namespace, tmp_path):
    namespace.writes_left = 1
    with pytest.raises(ServiceError):
        draw(account)
    assert list(namespace.objects) == ["token"]
    with pytest.raises(ServiceError, match="there is no secret keys"):
        install(account)
    namespace.writes_left = 2
    draw(account)
    namespace.writes_left = 0
    with pytest.raises(ServiceError):
        install(account)
    namespace.writes_left = 99
    install(account)
    assert admits(namespace, tmp_path / "keys") == "admin"


@pytest.mark.parametrize("found", [b"", b"mine", b"jarvis_00_11", b"jarvis_zz_zz", b"jarvis_" + b"0" * 81])
def test_a_secret_of_another_kind_is_told_of(account, namespace, found):
    data = {"token": base64.b64encode(found).decode()}
    namespace.objects["token"] = {"metadata": {"name": "token", "resourceVersion": "1"}, "data": data}
    draw(account)
    with pytest.raises(ServiceError, match="holds no token"):
        install(account)
    assert {} == namespace.objects["keys"]["data"]


def test_what_is_left_for_another_to_fill_is_empty_and_created_once(account, namespace):
    api = Kubernetes("jarvis-system", account)
    assert "secret jarvis-system/tls created, empty" == create_empty(api, SECRET, "tls")
    assert ("Opaque", {}) == (namespace.objects["tls"]["type"], namespace.objects["tls"]["data"])
    assert "secret jarvis-system/tls exists and is kept" == create_empty(api, SECRET, "tls")
    assert "configmap jarvis-system/ca created, empty" == create_empty(api, CONFIG_MAP, "ca")
