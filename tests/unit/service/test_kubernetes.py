import base64
import http.client
import json
import ssl

import pytest

from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.net.kubernetes import create_secret


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
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: None)
    monkeypatch.setattr(http.client, "HTTPSConnection", FakeConnection)
    return tmp_path


def create(account, status, body=b"{}"):
    FakeConnection.answer = (status, body)
    return create_secret("jarvis-system", "jarvis-cluster", "cluster-secret", account)


def test_a_missing_secret_is_created_with_32_random_bytes(account):
    assert create(account, 201) == "secret jarvis-system/jarvis-cluster created"
    method, path, body, headers = FakeConnection.asked
    assert (method, path) == ("POST", "/api/v1/namespaces/jarvis-system/secrets")
    assert headers["Authorization"] == "Bearer token"
    value = base64.b64decode(json.loads(body)["data"]["cluster-secret"])
    assert len(bytes.fromhex(value.decode())) == 32


def test_an_existing_secret_is_kept(account):
    assert create(account, 409) == "secret jarvis-system/jarvis-cluster exists and is kept"


@pytest.mark.parametrize(("status", "code"), [(403, "kubernetes_refused"), (0, "kubernetes_unreachable")])
def test_a_refusal_or_an_unreachable_api_is_told(account, status, code):
    with pytest.raises(ServiceError) as failed:
        create(account, status, b"secrets is forbidden")
    assert failed.value.code == code


def test_outside_a_pod_it_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no service account"):
        create_secret("n", "s", "k", tmp_path)
