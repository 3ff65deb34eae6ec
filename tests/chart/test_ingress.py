"""The API for clients outside: by an Ingress that any controller understands, or by a route of the Gateway API."""

from typing import Any

import pytest

from crdt_service.__main__ import _parser as main_parser
from crdt_service.certificates.renewal import read_wanted
from harness.cluster import contour
from tests.chart.conftest import Manifest, Render
from tests.chart.crd import validate

_HOSTS = ["jarvis.example", "state.jarvis.example"]
_CONTROLLERS = ("contour", "nginx", "traefik", "other")
_LONG = "a" * 47


def _values(encrypted: bool = True, **ingress: Any) -> Manifest:
    return {"ingress": {"enabled": True, "hosts": _HOSTS, **ingress}, "security": {"enable_tls": encrypted}}


def _route(encrypted: bool = True, **gateway: Any) -> Manifest:
    return {
        "gateway": {"enabled": True, "parent_refs": [{"name": "web"}], **gateway},
        "security": {"enable_tls": encrypted},
    }


def _find(manifests: list[Manifest], kind: str) -> Any:
    found = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith("-backend")]
    return found[0] if found else None


def _annotations(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("annotations", {})


def _api_names(manifests: list[Manifest]) -> set[str]:
    """The names that the API's certificate is made for."""
    names = set()
    for manifest in manifests:
        if manifest["kind"] == "CronJob" and manifest["metadata"]["name"].endswith("-tls"):
            [container] = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
            [server] = main_parser().parse_args(container["args"]).server
            names |= set(read_wanted(server, is_peer=False)[1].names)
    return names


def _let_in(manifests: list[Manifest]) -> set[str]:
    """Namespaces whose pods reach the API."""
    sources = _find(manifests, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    selectors = [source["namespaceSelector"]["matchLabels"] for source in sources if "namespaceSelector" in source]
    return {selector["kubernetes.io/metadata.name"] for selector in selectors}


def test_nothing_leads_in_from_outside_unless_it_is_asked_for(render: Render):
    manifests = render()

    assert not {"Ingress", "HTTPRoute", "BackendTLSPolicy", "ServersTransport"} & {each["kind"] for each in manifests}
    assert set() == _let_in(manifests)


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("controller", _CONTROLLERS)
def test_every_controller_gets_valid_objects_for_every_host(render: Render, controller: str, tls: bool):
    values = _values(tls, controller=controller, tls={} if tls else {"existing_secret": "mine"})
    manifests = render(values)
    for manifest in manifests:
        validate(manifest, "1.37")

    spec = _find(manifests, "Ingress")["spec"]
    service = _find(manifests, "Service")["spec"]["ports"][0]
    assert _HOSTS == [rule["host"] for rule in spec["rules"]]
    assert [{"hosts": _HOSTS, "secretName": "jarvis-api-tls" if tls else "mine"}] == spec["tls"]
    for rule in spec["rules"]:
        [path] = rule["http"]["paths"]
        assert ("/", "Prefix") == (path["path"], path["pathType"])
        assert {"service": {"name": "jarvis-backend", "port": {"name": service["name"]}}} == path["backend"]


def test_the_class_is_the_controllers_unless_one_is_given(render: Render):
    def name(**ingress: str) -> Any:
        return _find(render(_values(**ingress)), "Ingress")["spec"].get("ingressClassName")

    assert [contour.INGRESS_CLASS, "nginx", "traefik", None] == [name(controller=each) for each in _CONTROLLERS]
    assert ["internal"] * 4 == [name(controller=each, class_name="internal") for each in _CONTROLLERS]


def test_the_apis_own_certificate_names_the_hosts_only_where_the_ingress_shows_it(render: Render):
    assert set(_HOSTS) <= _api_names(render(_values()))
    for others in (
        {},
        _values(enabled=False),
        _values(tls={"existing_secret": "mine"}),
        _values(tls={"cluster_issuer": "a"}),
    ):
        names = _api_names(render(others))
        assert (True, set()) == ("jarvis-backend" in names, set(_HOSTS) & names)


def test_a_certificate_of_cert_managers_has_a_secret_of_its_own(render: Render):
    ingress = _find(render(_values(tls={"cluster_issuer": "letsencrypt"})), "Ingress")

    assert "letsencrypt" == _annotations(ingress)["cert-manager.io/cluster-issuer"]
    assert "jarvis-ingress-tls" == ingress["spec"]["tls"][0]["secretName"]


def test_contour_redirects_http_waits_for_feeds_and_speaks_tls_by_the_services_protocol(render: Render):
    manifests = render(_values())

    assert {
        "ingress.kubernetes.io/force-ssl-redirect": "true",
        "projectcontour.io/response-timeout": "infinity",
    } == _annotations(_find(manifests, "Ingress"))
    assert "https" == _find(manifests, "Service")["spec"]["ports"][0]["appProtocol"]


def test_nginx_and_traefik_verify_the_backend_by_a_name_that_its_certificate_has(render: Render):
    nginx, traefik = (render(_values(controller=each)) for each in ("nginx", "traefik"))
    told = _annotations(_find(nginx, "Ingress"))
    transport = _find(traefik, "ServersTransport")
    service = _annotations(_find(traefik, "Service"))
    prefix = "nginx.ingress.kubernetes.io"

    assert ("HTTPS", "on") == (told[f"{prefix}/backend-protocol"], told[f"{prefix}/proxy-ssl-verify"])
    assert "jarvis-system/jarvis-api-tls" == told[f"{prefix}/proxy-ssl-secret"]
    assert told[f"{prefix}/proxy-ssl-name"] in _api_names(nginx)
    assert transport["spec"]["serverName"] in _api_names(traefik)
    assert [{"configMap": "jarvis-ca"}] == transport["spec"]["rootCAs"]
    assert {
        "traefik.ingress.kubernetes.io/service.serversscheme": "https",
        "traefik.ingress.kubernetes.io/service.serverstransport": "jarvis-system-jarvis-backend@kubernetescrd",
    } == service


@pytest.mark.parametrize("controller", _CONTROLLERS)
def test_without_tls_no_controller_speaks_it_to_the_backend(render: Render, controller: str):
    manifests = render(_values(False, controller=controller, tls={"existing_secret": "mine"}))
    told = {**_annotations(_find(manifests, "Ingress")), **_annotations(_find(manifests, "Service"))}

    assert [] == [name for name in told if "proxy-ssl" in name or "backend-protocol" in name or "servers" in name]
    assert None is _find(manifests, "ServersTransport")
    assert "http" == _find(manifests, "Service")["spec"]["ports"][0]["appProtocol"]


def test_annotations_of_the_user_stand_above_those_of_the_controller(render: Render):
    # Empty ones, too, by which one of the chart's is taken back.
    own = {"projectcontour.io/response-timeout": "", "example.com/colour": "blue"}
    told = _annotations(_find(render(_values(annotations=own)), "Ingress"))

    assert {**own, "ingress.kubernetes.io/force-ssl-redirect": "true"} == told
    service = {"deployment": {"service": {"annotations": {"a": "b"}}}}
    assert 3 == len(_annotations(_find(render({**_values(controller="traefik"), **service}), "Service")))


def test_policies_let_in_the_pods_of_the_controller_and_of_the_gateways(render: Render):
    def let_in(**ingress: str) -> set[str]:
        return _let_in(render(_values(**ingress)))

    assert [{contour.NAMESPACE}, {"ingress-nginx"}, {"traefik"}, set()] == [
        let_in(controller=each) for each in _CONTROLLERS
    ]
    assert [{"edge"}] * 4 == [let_in(controller=each, controller_namespace="edge") for each in _CONTROLLERS]
    assert set() == _let_in(render(_route()))
    assert {"edge"} == _let_in(render(_route(controller_namespace="edge")))
    assert {"edge", "projectcontour"} == _let_in(render({**_values(), **_route(controller_namespace="edge")}))
    assert {"edge"} == _let_in(
        render({**_values(controller_namespace="edge"), **_route(controller_namespace="edge")}),
    )


@pytest.mark.parametrize("tls", [True, False])
def test_a_route_is_attached_to_gateways_and_verified_where_there_is_tls(render: Render, tls: bool):
    parents = [{"name": "web", "namespace": "edge", "section_name": "https"}, {"name": "inner"}]
    manifests = render(_route(tls, parent_refs=parents, hostnames=["*.jarvis.example"]))
    for manifest in manifests:
        validate(manifest, "1.37")
    route, policy = _find(manifests, "HTTPRoute")["spec"], _find(manifests, "BackendTLSPolicy")

    expected = [{"name": "web", "namespace": "edge", "sectionName": "https"}, {"name": "inner"}]
    assert (expected, ["*.jarvis.example"]) == (route["parentRefs"], route["hostnames"])
    [rule] = route["rules"]
    assert ([{"name": "jarvis-backend", "port": 8000}], {"request": "0s"}) == (rule["backendRefs"], rule["timeouts"])
    assert tls == bool(policy)
    if tls:
        assert [{"group": "", "kind": "Service", "name": "jarvis-backend"}] == policy["spec"]["targetRefs"]
        assert policy["spec"]["validation"]["hostname"] in _api_names(manifests)


def test_the_longest_names_are_valid(render: Render):
    host = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"
    values = {**_values(hosts=[host], controller="traefik"), **_route()}
    for manifest in render(values, release=_LONG, namespace="n" * 63):
        validate(manifest, "1.37")


def test_text_that_looks_like_another_type_stays_text(render: Render):
    values = {
        **_values(controller="other", class_name="1e3", hosts=["true"], tls={"existing_secret": "0x1"}),
        **_route(parent_refs=[{"name": "1", "namespace": "2", "section_name": "3"}], controller_namespace="4"),
    }
    for manifest in render(values):
        validate(manifest, "1.37")
