"""The deployed API, called with the API key that the cluster holds."""

import base64

import pytest

from crdt_service.client import Retry
from harness.kube import Kube, Request, Response, UnreachableError
from harness.release.service import Service, ServiceError
from tests.unit.harness.fake_api import FakeApi, deployed_api

NAMESPACE = "jarvis-system"
NODE = "jarvis-crdt-0"


@pytest.fixture
def api() -> FakeApi:
    api = deployed_api()
    put_token(api, "jarvis_1_secret")
    api.service.api_key = "jarvis_1_secret"
    return api


def put_token(api: FakeApi, token: str) -> None:
    data = {"token": base64.b64encode(token.encode()).decode()}
    api.put("secrets", NAMESPACE, "jarvis-admin-token", data=data)


def test_the_key_in_the_cluster_is_sent(api: FakeApi) -> None:
    service = Service(api.kube(), NAMESPACE)

    service.write("k", "lww_register", {"assign": 1}, node=NODE)

    assert service.read("k", node=NODE) == 1


def test_the_key_is_in_the_secret_that_the_deployment_names(api: FakeApi) -> None:
    deployment = api.objects["deployments", NAMESPACE, "jarvis-backend"]
    deployment["metadata"]["annotations"] = {"jarvis/admin-token": "own"}
    service = Service(api.kube(), NAMESPACE)
    with pytest.raises(ServiceError, match="the Secret own must hold one"):
        service.read("k", node=NODE)

    api.put("secrets", NAMESPACE, "own", data=api.objects["secrets", NAMESPACE, "jarvis-admin-token"]["data"])
    assert service.read("k", node=NODE) is None


def test_health_needs_none(api: FakeApi) -> None:
    api.refused["/secrets"] = 403

    assert Service(api.kube(), NAMESPACE).read_health().status == "healthy"


def test_a_rotated_key_is_read_again(api: FakeApi) -> None:
    service = Service(api.kube(), NAMESPACE)
    assert service.read("k", node=NODE) is None

    api.service.api_key = "jarvis_2_secret"
    put_token(api, "jarvis_2_secret")

    assert service.read("k", node=NODE) is None


@pytest.mark.parametrize("state", ["gone", "forbidden", "broken", "wrong"])
def test_without_a_good_key_it_says_which_secret_lacks_one(api: FakeApi, state: str) -> None:
    if state == "gone":
        del api.objects["secrets", NAMESPACE, "jarvis-admin-token"]
    elif state == "forbidden":
        api.refused["/secrets"] = 403
    elif state == "broken":
        api.put("secrets", NAMESPACE, "jarvis-admin-token", data={"token": "é"})
    else:
        put_token(api, "jarvis_2_secret")
    service = Service(api.kube(), NAMESPACE)

    for _ in range(2):
        with pytest.raises(
            ServiceError, match=r"status 401: .* the Secret jarvis-admin-token must hold one"
        ) as refused:
            service.read("k", node=NODE)
        assert "secret" not in str(refused.value).replace("Secret", "")


def test_without_keys_none_is_needed(api: FakeApi) -> None:
    api.service.api_key = ""
    del api.objects["secrets", NAMESPACE, "jarvis-admin-token"]

    assert Service(api.kube(), NAMESPACE).read("k", node=NODE) is None


def test_a_named_write_is_sent_again_under_its_name(api: FakeApi) -> None:
    names: list[str | None] = []

    def send(request: Request) -> Response:
        if "/proxy/v1/keys/" in request.path:
            names.append(request.headers.get("Idempotency-Key"))
            if len(names) == 1:
                raise UnreachableError("the answer is lost")
        return api.send(request)

    with Service(Kube(send, "kind-test"), NAMESPACE, retry=Retry(first_seconds=0)) as service:
        service.write("k", "lww_register", {"assign": 1}, node=NODE, idempotency_key="first")
        service.write("k", "lww_register", {"assign": 2}, node=NODE)

    assert ["first", "first", None] == names


def test_a_request_shows_no_key() -> None:
    assert "jarvis_1" not in repr(Request("GET", "/", headers={"X-API-Key": "jarvis_1_secret"}))
