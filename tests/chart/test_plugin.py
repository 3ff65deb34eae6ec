"""Plugins arrive in the backend's pods as the service takes them; nodes get those whose strategies rules name."""

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from crdt_service.kernel.config import PluginConfig, read_plugins
from tests.chart.conftest import CHART, ROOT, Manifest, Render

_EXAMPLE = ROOT / "examples/plugins/shapes/jarvis_shapes.py"
_PLUGINS: list[Manifest] = [
    {"name": "shapes", "settings": {"orders/": {"bytes_max": 1000000, "required": ["<é>&"]}}},
    {"name": "packed", "image": "elsewhere/packed:1", "required": True, "timeout_ms": 5, "memory_mib": 64},
    {"name": "true", "image": "1e3"},
    {"name": "built-in"},
]


@pytest.fixture(scope="module")
def manifests(helm: Path) -> list[Manifest]:
    """Manifests of the chart with these plugins, the first as `--set-file` gives it."""
    source = f"plugins[0].source={_EXAMPLE}"
    command = [str(helm), "template", "jarvis", str(CHART), "--values", "-", "--set-file", source]
    done = subprocess.run(command, input=json.dumps({"plugins": _PLUGINS}), capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _find(manifests: list[Manifest], kind: str, name: str) -> Any:
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


def _pod(manifests: list[Manifest]) -> Any:
    return _find(manifests, "Deployment", "jarvis-backend")["spec"]["template"]["spec"]


def test_the_service_takes_the_plugins(manifests: list[Manifest], tmp_path: Path):
    path = tmp_path / "plugins.json"
    path.write_text(_find(manifests, "ConfigMap", "jarvis-plugins")["data"]["plugins.json"], encoding="utf-8")

    assert [
        PluginConfig("shapes", False, 1000, 256, {"orders/": {"bytes_max": 1000000, "required": ["<é>&"]}}),
        PluginConfig("packed", True, 5, 64, {}),
        PluginConfig("true", False, 1000, 256, {}),
        PluginConfig("built-in", False, 1000, 256, {}),
    ] == read_plugins(path).plugins


def test_code_is_mounted_where_the_service_looks_for_it(manifests: list[Manifest], tmp_path: Path):
    data = _find(manifests, "ConfigMap", "jarvis-plugins")["data"]
    container = _pod(manifests)["containers"][0]
    mounts = {m["mountPath"]: (m["name"], m.get("subPath")) for m in container["volumeMounts"] if m["readOnly"]}
    file = next(each.removeprefix("--plugins=") for each in container["args"] if each.startswith("--plugins="))
    directory = json.loads(data["plugins.json"])["directory"]

    assert ("plugins", "plugins.json") == mounts[file]
    assert {
        f"{directory}/shapes.py": ("plugins", "shapes.py"),
        f"{directory}/packed": ("plugin-packed", None),
        f"{directory}/true": ("plugin-true", None),
    } == {path: mount for path, mount in mounts.items() if path.startswith(directory + "/")}
    assert _EXAMPLE.read_text() == data["shapes.py"]


def test_images_are_copied_by_restricted_containers(manifests: list[Manifest]):
    pod = _pod(manifests)

    assert [("plugin-packed", "elsewhere/packed:1"), ("plugin-true", "1e3")] == [
        (each["name"], each["image"]) for each in pod["initContainers"]
    ]
    for each in pod["initContainers"]:
        assert pod["containers"][0]["securityContext"] == each["securityContext"]
        assert {"cpu", "memory", "ephemeral-storage"} == set(each["resources"]["limits"])
        assert ["cp", "-r", "/plugin/.", "/target"] == each["command"]
        assert [{"name": each["name"], "mountPath": "/target"}] == each["volumeMounts"]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_manifests_are_valid(manifests: list[Manifest], version: str):
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_nodes_are_not_rolled_for_a_plugin(render: Render):
    def nodes(**values: Any) -> Any:
        return _find(render(values), "StatefulSet", "jarvis-crdt")

    assert nodes() == nodes(plugins=_PLUGINS)


def _name_strategies(*plugins: str) -> Manifest:
    return {"conflict_rules": [{"strategy": f"{plugin}.s"} for plugin in plugins]}


def _nodes(manifests: list[Manifest]) -> Any:
    nodes = _find(manifests, "StatefulSet", "jarvis-crdt")["spec"]["template"]
    return nodes["metadata"]["annotations"]["checksum/plugins"], nodes["spec"]


def test_nodes_get_the_plugins_whose_strategies_rules_name(render: Render):
    rendered = render(
        {"crdt": _name_strategies("packed", "shapes"), "plugins": [{**_PLUGINS[0], "source": "x = 1"}, *_PLUGINS[1:]]}
    )
    backend, (_, nodes) = _pod(rendered), _nodes(rendered)
    container = nodes["containers"][0]
    mounts = {m["mountPath"]: (m["name"], m.get("subPath")) for m in container["volumeMounts"]}

    assert "--plugins=/etc/jarvis-plugins.json" in container["args"]
    assert {
        "/etc/jarvis-plugins.json": ("plugins", "plugins.json"),
        "/etc/jarvis-plugins/shapes.py": ("plugins", "shapes.py"),
        "/etc/jarvis-plugins/packed": ("plugin-packed", None),
    } == {path: mount for path, mount in mounts.items() if path.startswith("/etc/jarvis-plugins")}
    assert [backend["initContainers"][0]] == nodes["initContainers"]
    assert {"plugins", "plugin-packed"} == {v["name"] for v in nodes["volumes"] if v["name"].startswith("plugin")}
    for manifest in rendered:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_nodes_are_rolled_for_a_plugin_that_decides_and_for_no_other(render: Render):
    def nodes(used: str, other: str) -> Any:
        plugins = [{"name": "a", "source": used}, {"name": "b", "source": other}]
        return _nodes(render({"crdt": _name_strategies("a"), "plugins": plugins}))

    assert nodes("x = 1", "y = 1") == nodes("x = 1", "y = 2")
    assert nodes("x = 1", "y = 1") != nodes("x = 2", "y = 1")


def test_backends_are_rolled_for_other_code_or_settings(render: Render):
    def checksum(**plugin: Any) -> Any:
        values = {"plugins": [{"name": "a", **plugin}]}
        template = _find(render(values), "Deployment", "jarvis-backend")["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/plugins"]

    assert 3 == len({checksum(source="x = 1"), checksum(source="x = 2"), checksum(settings={"a": 1})})
