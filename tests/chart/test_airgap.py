"""Where no registry is reached, no pod tries to pull an image."""

from tests.chart.conftest import ROOT, Render


def test_no_container_pulls(render: Render) -> None:
    objects = render(files=(ROOT / "values/kind.yaml", ROOT / "values/airgap.yaml"))

    templates = [item["spec"].get("jobTemplate", item)["spec"]["template"] for item in objects if _has_pods(item)]
    pods = [template["spec"] for template in templates] + [item["spec"] for item in objects if item["kind"] == "Pod"]
    containers = [container for pod in pods for container in pod["containers"] + pod.get("initContainers", [])]
    assert {"Never"} == {container["imagePullPolicy"] for container in containers}


def _has_pods(item: dict) -> bool:
    return item["kind"] in ("StatefulSet", "Deployment", "Job", "CronJob", "DaemonSet")
