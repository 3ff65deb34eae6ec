"""The kind cluster's life: create, find, load images into, delete. The same cluster on either path to a node image."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import yaml

from harness.cluster import version
from harness.cluster.airgap.node_image import ensure_node_image
from harness.cluster.docker import has_image, pull_image, save_images_into
from harness.cluster.network import NodeAddress, connect_pods
from harness.cluster.progress import Progress
from harness.cluster.tool import ensure_tool, find_tool
from harness.failure import Failure
from harness.kube import conditions_of
from harness.poll import Done, Pending, WaitTimeoutError, wait_until
from harness.process import CommandError, run

_CREATE_SECONDS_MAX: Final = 600
_READY_SECONDS_MAX: Final = 300
_RESTART_SECONDS_MAX: Final = 120
_MANIFESTS: Final = Path(__file__).parent / "manifest"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kind cluster.

    Attributes:
        name: kind's name for it.
        nodes: Names of its node containers.
    """

    name: str
    nodes: tuple[str, ...]

    @property
    def context(self) -> str:
        """The kubeconfig context that kind writes."""
        return f"kind-{self.name}"


def find_cluster() -> Cluster | None:
    """Return the cluster, whether or not its nodes run; None where there is none."""
    label = f"label=io.x-k8s.kind.cluster={version.CLUSTER_NAME}"
    listed = run(["docker", "ps", "--all", "--filter", label, "--format", "{{.Names}}"], check=False)
    nodes = tuple(sorted(listed.stdout.split()))
    return Cluster(version.CLUSTER_NAME, nodes) if nodes else None


def ensure_cluster(progress: Progress) -> Cluster:
    """Return the cluster with every node Ready: as it runs, started again with all that is in it, or made anew."""
    cluster = find_cluster()
    if cluster and _runs(cluster):
        progress.say(f"cluster {cluster.name} is already running")
        # A node that the engine restarted by itself has lost its routes.
        _connect(cluster, progress)
        return cluster
    if cluster and _start_again(cluster, progress):
        return cluster
    delete_cluster(progress)
    with ThreadPoolExecutor(1) as pool:
        kind = pool.submit(ensure_tool, "kind", progress)
        image, stock = _ensure_image(progress)
        kind.result()
    with progress.step("creating the cluster: a control plane and a worker in each of 3 zones", 60):
        cluster = _create(image, stock=stock)
        _connect(cluster, progress)
    for manifest in ("storage-class.yaml", "metrics-server.yaml"):
        kubectl(cluster, "apply", "--filename", "-", input=(_MANIFESTS / manifest).read_text(encoding="utf-8"))
    return cluster


def _start_again(cluster: Cluster, progress: Progress) -> bool:
    """Start the nodes that stopped, as an engine's restart leaves them; False if that does not help."""
    try:
        with progress.step("starting the cluster's nodes again", 30):
            run(["docker", "start", *cluster.nodes], timeout_seconds=60)
            wait_until(
                lambda: Done(None) if _runs(cluster) else Pending("the API server does not answer"),
                what="the API server",
                deadline_seconds=_RESTART_SECONDS_MAX,
            )
            _connect(cluster, progress)
    except (CommandError, WaitTimeoutError) as error:
        progress.say(f"{error}; making the cluster anew, without what was in it", style="yellow")
        return False
    return True


def _connect(cluster: Cluster, progress: Progress) -> None:
    """Give pods a network where the node image has none, and wait until every node is Ready."""
    if is_airgapped(cluster):
        connect_pods(_await_addresses(cluster))
    _await_ready(cluster, progress)


def _ensure_image(progress: Progress) -> tuple[str, bool]:
    """The node image, and whether it is the stock one with a pod network of its own."""
    if os.environ.get("JARVIS_AIRGAP") != "1":
        if has_image(version.STOCK_NODE_IMAGE) or pull_image(version.STOCK_NODE_IMAGE):
            return version.STOCK_NODE_IMAGE, True
        progress.say("no registry serves the stock node image; building it from package registries")
    return ensure_node_image(progress), False


def is_airgapped(cluster: Cluster) -> bool:
    """Whether the nodes run an image of ours, whose pods can pull nothing and have no network of their own."""
    return run(["docker", "inspect", "--format", "{{.Config.Image}}", cluster.nodes[0]]).stdout.startswith("jarvis/")


def load_images(cluster: Cluster, images: Sequence[tuple[str, str]], progress: Progress) -> bool:
    """Make images of the engine available on every worker node; False if all were there.

    Args:
        cluster: The running cluster.
        images: Both names of each: the one that pods ask for, and one tagged by content, which tells what is there.
        progress: Says what is loaded.
    """
    loaded = False
    for node in (node for node in cluster.nodes if not node.endswith("control-plane")):
        held = _loaded(node)
        missing = [names for names in images if names[1] not in held]
        if missing:
            with progress.step(f"loading {', '.join(name for name, _ in missing)} into {node}"):
                save_images_into(node, [name for names in missing for name in names])
            loaded = True
    return loaded


def restart_workloads(cluster: Cluster, progress: Progress) -> None:
    """Restart the pods of every Jarvis there is, so that they run the image that was just loaded under the same tag."""
    ours = "app.kubernetes.io/name=jarvis,app.kubernetes.io/component in (crdt,backend)"
    which = ["statefulsets,deployments", "--all-namespaces", f"--selector={ours}"]
    for item in read_objects(cluster, *which):
        namespace, workload = item["metadata"]["namespace"], f"{item['kind'].lower()}/{item['metadata']['name']}"
        kubectl(cluster, "rollout", "restart", workload, "--namespace", namespace)
        progress.say(f"restarting {workload} in {namespace}: it runs an older build of the image")


def delete_cluster(progress: Progress) -> None:
    """Remove the cluster's containers and its kubeconfig entry, if there are any."""
    if find_cluster():
        with progress.step(f"deleting cluster {version.CLUSTER_NAME}"):
            run([str(find_tool("kind")), "delete", "cluster", "--name", version.CLUSTER_NAME], timeout_seconds=120)


def kubectl(cluster: Cluster, *args: str, input: str | None = None) -> str:  # noqa: A002 -- as in subprocess.
    """Run kubectl in the control plane's container and return its stdout; no kubectl is needed on the host."""
    control_plane = f"{cluster.name}-control-plane"
    command = ["docker", "exec", "-i", control_plane, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", *args]
    return run(command, input=input, timeout_seconds=60).stdout


def read_objects(cluster: Cluster, kind: str, *options: str) -> list[dict[str, Any]]:
    """Return the objects that `kubectl get` lists."""
    items: list[dict[str, Any]] = json.loads(kubectl(cluster, "get", kind, *options, "--output=json"))["items"]
    return items


def _create(image: str, *, stock: bool) -> Cluster:
    workers = [{"role": "worker", "labels": {"topology.kubernetes.io/zone": zone}} for zone in version.ZONES]
    config: dict[str, Any] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            "podSubnet": version.POD_SUBNET,
            "serviceSubnet": version.SERVICE_SUBNET,
            "disableDefaultCNI": not stock,
        },
        "nodes": [{"role": "control-plane"}, *workers],
    }
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        patch = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False}
        config["kubeadmConfigPatches"] = [json.dumps(patch)]
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(config, file)
        file.flush()
        command = [str(find_tool("kind")), "create", "cluster", "--name", version.CLUSTER_NAME, "--image", image]
        run([*command, "--config", file.name], timeout_seconds=_CREATE_SECONDS_MAX)
    cluster = find_cluster()
    if cluster is None:
        raise Failure("kind said that it created the cluster, but no node container runs", "see `docker ps --all`")
    return cluster


def _runs(cluster: Cluster) -> bool:
    """Whether every node that there should be runs, and the API server answers."""
    states = run(["docker", "inspect", "--format", "{{.State.Running}}", *cluster.nodes]).stdout.split()
    if states != ["true"] * (1 + len(version.ZONES)):
        return False
    try:
        kubectl(cluster, "get", "--raw", "/readyz")
    except CommandError:
        return False
    return True


def _await_addresses(cluster: Cluster) -> tuple[NodeAddress, ...]:
    def probe() -> Done[tuple[NodeAddress, ...]] | Pending:
        nodes = read_objects(cluster, "nodes")
        with_subnet = [node for node in nodes if node["spec"].get("podCIDR")]
        if len(with_subnet) < len(cluster.nodes):
            return Pending(f"{len(with_subnet)} of {len(cluster.nodes)} nodes have a pod subnet")
        return Done(tuple(_address(node) for node in nodes))

    return wait_until(probe, what="pod subnets", deadline_seconds=_READY_SECONDS_MAX)


def _address(node: dict[str, Any]) -> NodeAddress:
    """The engine's word on the address: after a restart the node's own status is behind for a while."""
    name = node["metadata"]["name"]
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return NodeAddress(
        name, run(["docker", "inspect", "--format", networks, name]).stdout.strip(), node["spec"]["podCIDR"]
    )


def _await_ready(cluster: Cluster, progress: Progress) -> None:
    def probe() -> Done[None] | Pending:
        nodes = read_objects(cluster, "nodes")
        ready = sum(conditions_of(node).get("Ready") == "True" for node in nodes)
        if ready == len(nodes) == len(cluster.nodes):
            return Done(None)
        return Pending(f"{ready} of {len(cluster.nodes)} nodes Ready")

    wait_until(probe, what="nodes", deadline_seconds=_READY_SECONDS_MAX, progress=progress.say)


def _loaded(node: str) -> str:
    return run(["docker", "exec", node, "ctr", "--namespace=k8s.io", "images", "list"], check=False).stdout
