"""Grafana: what its provisioning asks for is there, it holds no secret, and it runs where nothing may be written."""

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.conftest import CHART, ROOT, VALUES_FILES, Manifest, Render

_MIB = 1 << 20
_FILES = {path.name: path.read_text() for path in (CHART / "dashboards").glob("*.json")}
_EXISTING = {"monitoring": {"stack": "existing"}}
_OFF = {"monitoring": {"grafana_enabled": False}}

# What Grafana's documentation of provisioning names, and no more: Grafana reads past a misspelt key without a word.
_TEXT = {"type": "string", "minLength": 1}
_DATA_SOURCES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "datasources"],
    "properties": {
        "apiVersion": {"const": 1},
        "prune": {"type": "boolean"},
        "datasources": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "uid", "type", "access", "url"],
                "properties": {
                    "name": _TEXT,
                    # As long as Grafana lets an identity be, and of what it lets it be made.
                    "uid": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,40}$"},
                    "type": {"const": "prometheus"},
                    "access": {"const": "proxy"},
                    "url": {"type": "string", "pattern": "^http://[a-z0-9-]{1,63}:[0-9]+$"},
                    "orgId": {"type": "integer"},
                    "isDefault": {"type": "boolean"},
                    "editable": {"type": "boolean"},
                    "jsonData": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "httpMethod": {"enum": ["GET", "POST"]},
                            "prometheusType": {"enum": ["Prometheus", "Cortex", "Mimir", "Thanos"]},
                            "timeInterval": {"type": "string", "pattern": "^[1-9][0-9]*[smh]$"},
                        },
                    },
                },
            },
        },
    },
}
_PROVIDERS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "providers"],
    "properties": {
        "apiVersion": {"const": 1},
        "providers": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type", "options"],
                "properties": {
                    "name": _TEXT,
                    "orgId": {"type": "integer"},
                    "folder": _TEXT,
                    "folderUid": _TEXT,
                    "type": {"const": "file"},
                    "disableDeletion": {"type": "boolean"},
                    "allowUiUpdates": {"type": "boolean"},
                    "updateIntervalSeconds": {"type": "integer", "minimum": 10},
                    "options": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["path"],
                        "properties": {"path": _TEXT, "foldersFromFilesStructure": {"type": "boolean"}},
                    },
                },
            },
        },
    },
}


def _made(render: Render, values: Manifest | None = None, **names: str) -> dict[str, Manifest]:
    """What belongs to Grafana, by `kind/name`."""
    return {
        f"{body['kind']}/{body['metadata']['name']}": body
        for body in render(values, **names)
        if body["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "grafana"
    }


@pytest.fixture(scope="module")
def made(render: Render) -> dict[str, Manifest]:
    return _made(render)


@pytest.fixture(scope="module")
def pod(made: dict[str, Manifest]) -> Manifest:
    return made["Deployment/jarvis-grafana"]["spec"]["template"]["spec"]


def _variables(pod: Manifest) -> dict[str, str]:
    return {env["name"]: env["value"] for env in pod["containers"][0]["env"]}


def _mounted(pod: Manifest) -> dict[str, Any]:
    """The volume at each place."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}


def test_it_is_there_where_it_is_bundled_and_only_its_dashboards_where_one_exists(render: Render):
    assert {
        "ConfigMap/jarvis-dashboards",
        "ConfigMap/jarvis-grafana",
        "Deployment/jarvis-grafana",
        "NetworkPolicy/jarvis-grafana",
        "Service/jarvis-grafana",
        "ServiceAccount/jarvis-grafana",
    } == set(_made(render))
    assert {"ConfigMap/jarvis-dashboards"} == set(_made(render, _EXISTING))
    assert {} == _made(render, _OFF)
    assert {} == _made(render, {"monitoring": {"stack": "existing", "grafana_enabled": False}})
    assert "NetworkPolicy/jarvis-grafana" not in _made(render, {"security": {"network_policies": False}})


@pytest.mark.parametrize("file", VALUES_FILES, ids=lambda file: file.stem)
def test_it_is_off_where_its_image_cannot_be_had(render: Render, file: Any):
    enabled = {"kind": False, "airgap": False, "development": False}.get(file.stem, True)

    assert enabled == any(body["metadata"]["name"] == "jarvis-grafana" for body in render(files=(file,)))


@pytest.mark.parametrize("release", ["jarvis", "a" * 47])
def test_provisioning_has_the_shape_that_grafana_documents(render: Render, release: str):
    texts = _made(render, release=release)[f"ConfigMap/{release}-grafana"]["data"]
    sources, providers = yaml.safe_load(texts["datasources.yaml"]), yaml.safe_load(texts["dashboards.yaml"])

    jsonschema.validate(sources, _DATA_SOURCES)
    jsonschema.validate(providers, _PROVIDERS)
    assert {"datasources.yaml", "dashboards.yaml"} == set(texts)
    # Grafana would put variables in their place.
    assert "$" not in "".join(texts.values())


@pytest.mark.parametrize(
    ("kind", "change"),
    [("sources", {"isdefault": True}), ("sources", {"uid": "a" * 41}), ("providers", {"options": {}})],
)
def test_the_shape_refuses_what_grafana_would_read_past(made: dict[str, Manifest], kind: str, change: Manifest):
    texts = made["ConfigMap/jarvis-grafana"]["data"]
    key, items, schema = {
        "sources": ("datasources.yaml", "datasources", _DATA_SOURCES),
        "providers": ("dashboards.yaml", "providers", _PROVIDERS),
    }[kind]
    body = yaml.safe_load(texts[key])
    body[items][0] |= change

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, schema)


def test_the_data_source_is_the_one_that_dashboards_choose(render: Render, made: dict[str, Manifest]):
    [source] = yaml.safe_load(made["ConfigMap/jarvis-grafana"]["data"]["datasources.yaml"])["datasources"]

    assert ("http://jarvis-prometheus:9090", "jarvis-prometheus", True) == (
        source["url"],
        source["uid"],
        source["isDefault"],
    )
    for name, text in _FILES.items():
        board = json.loads(text)
        [choice] = [each for each in board["templating"]["list"] if each["type"] == "datasource"]
        assert (source["type"], "", {}) == (choice["query"], choice["regex"], choice["current"]), name
        used = set(re.findall(r'"uid": "([^"]*)"', json.dumps({**board, "uid": None})))
        assert {f"${{{choice['name']}}}"} == used, name


@pytest.mark.parametrize("values", [{}, _EXISTING], ids=["bundled", "existing"])
def test_the_dashboards_are_the_files_and_fit_into_their_config_map(render: Render, values: Manifest):
    config = _made(render, values)["ConfigMap/jarvis-dashboards"]

    assert _FILES == config["data"]
    assert len(json.dumps(config)) < _MIB
    # A dashboard's placeholders are Grafana's, not the template's.
    assert "${datasource}" in config["data"]["cluster.json"]


def test_a_grafana_that_exists_finds_the_dashboards_by_labels(render: Render):
    def labels(**existing: Any) -> dict[str, str]:
        values = {"monitoring": {"stack": "existing", **({"existing": existing} if existing else {})}}
        return _made(render, values)["ConfigMap/jarvis-dashboards"]["metadata"]["labels"]

    own = _made(render)["ConfigMap/jarvis-dashboards"]["metadata"]["labels"]
    assert own | {"grafana_dashboard": "1"} == labels()
    wanted = {"grafana_dashboard": None, "team.example/dashboards": "true", "app.kubernetes.io/name": "other"}
    assert own | {"team.example/dashboards": "true"} == labels(dashboard_labels=wanted)


def test_all_that_provisioning_names_is_mounted(made: dict[str, Manifest], pod: Manifest):
    mounted = _mounted(pod)
    [provider] = yaml.safe_load(made["ConfigMap/jarvis-grafana"]["data"]["dashboards.yaml"])["providers"]

    assert "jarvis-dashboards" == mounted[provider["options"]["path"]]["configMap"]["name"]
    for folder in ("datasources", "dashboards"):
        source = mounted[f"/etc/grafana/provisioning/{folder}"]["configMap"]
        assert ("jarvis-grafana", [f"{folder}.yaml"]) == (source["name"], [item["key"] for item in source["items"]])
    folder, _, name = _variables(pod)["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert (provider["options"]["path"], True) == (folder, name in _FILES)


def test_it_writes_only_where_it_may(pod: Manifest):
    writable = {path: volume for path, volume in _mounted(pod).items() if "emptyDir" in volume}
    [container] = pod["containers"]

    assert {"/var/lib/grafana", "/tmp"} == set(writable)  # noqa: S108
    assert all("sizeLimit" in volume["emptyDir"] for volume in writable.values())
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    others = [mount for mount in container["volumeMounts"] if mount["mountPath"] not in writable]
    assert [True] * len(others) == [mount["readOnly"] for mount in others]


def test_the_password_comes_from_a_file_that_grafana_alone_reads(render: Render, pod: Manifest):
    path = _variables(pod)["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    folder, _, name = path.rpartition("/")

    assert {
        "secretName": "jarvis-grafana",
        "items": [{"key": "admin-password", "path": name}],
        "defaultMode": 0o440,
    } == _mounted(pod)[folder]["secret"]
    everything = render()
    assert [] == [body for body in everything if body["kind"] == "Secret"]
    assert [path] == re.findall(r"/\S*admin-password", json.dumps(everything).replace('"', " "))
    assert "GF_SECURITY_ADMIN_PASSWORD" not in _variables(pod)
    assert "valueFrom" not in json.dumps(pod)


def test_a_password_of_ones_own_takes_the_place_of_the_drawn_one(render: Render):
    values = {"security": {"secrets": {"source": "existing", "names": {"grafana": "own.secret"}}}}
    pod = _made(render, values)["Deployment/jarvis-grafana"]["spec"]["template"]["spec"]

    assert "own.secret" == _mounted(pod)["/etc/grafana-secret"]["secret"]["secretName"]
    assert [] == [m for m in render(values) if "hook" in m["metadata"]["name"] and "admin-password" in str(m)]


@pytest.mark.parametrize("values", [_OFF, _EXISTING], ids=["off", "existing"])
def test_no_password_is_drawn_where_there_is_no_grafana(render: Render, values: Manifest):
    assert "admin-password" not in str(render(values))


def test_nobody_comes_in_without_a_password_and_nothing_goes_out(pod: Manifest):
    variables = _variables(pod)

    assert {
        "GF_AUTH_ANONYMOUS_ENABLED": "false",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_SECURITY_DISABLE_GRAVATAR": "true",
        "GF_SNAPSHOTS_EXTERNAL_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_PLUGINS_PREINSTALL_AUTO_UPDATE": "false",
    }.items() <= variables.items()
    # Each is of the form by which Grafana finds section and key.
    assert [] == [name for name in variables if not re.fullmatch(r"GF_[A-Z]+(_[A-Z]+)+(__FILE)?", name)]


def test_policies_let_people_in_and_only_prometheus_and_names_out(render: Render):
    spec = _made(render, {"infrastructure": {"vpc_cidr": "192.168.0.0/24"}})["NetworkPolicy/jarvis-grafana"]["spec"]

    assert [{"ports": [{"port": "http"}], "from": [{"ipBlock": {"cidr": "192.168.0.0/24"}}]}] == spec["ingress"]
    prometheus, dns = spec["egress"]
    assert [{"port": 9090}] == prometheus["ports"]
    assert "prometheus" == prometheus["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    assert {53, 5353} == {port["port"] for port in dns["ports"]}


def test_a_change_of_the_data_source_restarts_it_and_another_release_has_its_own(render: Render):
    def checksum(release: str) -> str:
        template = _made(render, release=release)[f"Deployment/{release}-grafana"]["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/provisioning"]

    assert checksum("jarvis") != checksum("other")


def test_one_pod_at_a_time_because_its_state_is_in_it(made: dict[str, Manifest]):
    spec = made["Deployment/jarvis-grafana"]["spec"]

    assert (1, {"type": "Recreate"}) == (spec["replicas"], spec["strategy"])


def test_the_page_lists_every_panel_and_says_what_is_not_exercised():
    page = (ROOT / "docs/dashboards.md").read_text()
    panels = [panel for text in _FILES.values() for panel in json.loads(text)["panels"] if panel["type"] != "row"]

    assert [] == [each for each in panels if f"| {each['title']} | {each['description']} |" not in page]
    assert "exercised only where its image can be pulled" in page
