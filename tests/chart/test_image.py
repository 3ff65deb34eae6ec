"""Where images come from: a tag or a digest, a registry before all names, and the secrets by which they are pulled."""

import yaml

from harness.cluster.version import SERVICE_IMAGE
from tests.chart.conftest import CHART, Manifest, Render, find_pods

_DIGEST = f"sha256:{'ab' * 32}"
_VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
_PLUGINS = [{"name": "packed", "image": "elsewhere/packed:1"}]


def _images(manifests: list[Manifest]) -> set[str]:
    pods = find_pods(manifests)
    return {each["image"] for pod in pods for each in [*pod["containers"], *pod.get("initContainers", [])]}


def test_an_empty_tag_is_the_charts_version_and_a_digest_takes_a_tags_place(render: Render):
    def image(**keys: str) -> set[str]:
        manifests = render({"image": keys})
        return {each for each in _images(manifests) if "crdt-service" in each}

    assert {f"{SERVICE_IMAGE}:{_VERSION}"} == image()
    assert {f"{SERVICE_IMAGE}:7"} == image(tag="7")
    assert {f"{SERVICE_IMAGE}@{_DIGEST}"} == image(tag="7", digest=_DIGEST)


def test_the_image_that_no_registry_has_is_named_as_none_could_have_it(render: Render):
    """Under `localhost` no name is another's: a name without a registry would be that of Docker Hub."""
    ours = {each for each in _images(render()) if "crdt-service" in each}
    assert {f"localhost/jarvis/crdt-service:{_VERSION}"} == ours
    mirrored = _images(render({"global": {"image_registry": "mirror.example"}}))
    assert f"mirror.example/jarvis/crdt-service:{_VERSION}" in mirrored


def test_a_registry_stands_before_every_image(render: Render):
    plain = _images(render({"plugins": _PLUGINS}))
    mirrored = _images(render({"plugins": _PLUGINS, "global": {"image_registry": "mirror.example:5000/proxy"}}))

    assert "elsewhere/packed:1" in plain
    assert {f"mirror.example:5000/proxy/{name.removeprefix('localhost/')}" for name in plain} == mirrored


def test_every_pod_names_the_secrets_by_which_its_images_are_pulled(render: Render):
    pods = find_pods(render({"global": {"image_pull_secrets": ["one", "123"]}}))

    assert [[{"name": "one"}, {"name": "123"}]] * len(pods) == [pod["imagePullSecrets"] for pod in pods]
    assert [] == [pod for pod in find_pods(render()) if "imagePullSecrets" in pod]


def test_every_pod_pulls_as_it_is_told(render: Render):
    pods = find_pods(render({"plugins": _PLUGINS, "image": {"pull_policy": "Always"}}))
    containers = [each for pod in pods for each in [*pod["containers"], *pod.get("initContainers", [])]]

    assert {"Always"} == {each["imagePullPolicy"] for each in containers}
