"""`python -m harness.cluster up|down|airgap|tools`: what `make` calls."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from harness.cluster.airgap.node_image import ensure_node_image
from harness.cluster.airgap.published import ensure_images
from harness.cluster.cache import cache_root
from harness.cluster.checkov import ensure_checkov
from harness.cluster.crd import ensure_schemas
from harness.cluster.engine import engine_answers, ensure_engine, stop_engine
from harness.cluster.host import require_free_space
from harness.cluster.ingress import ensure_ingress_controller
from harness.cluster.manager import delete_cluster, ensure_cluster, is_airgapped, load_images, restart_workloads
from harness.cluster.progress import Progress
from harness.cluster.service_image import ensure_python_image, ensure_service_image
from harness.cluster.tool import ensure_tool, ensure_tools
from harness.failure import Failure

_SPACE_GIBIBYTES = 4
_CHART = Path(__file__).parents[2] / "charts/jarvis/Chart.yaml"


def up(progress: Progress) -> None:
    """Bring up engine, cluster and service image."""
    require_free_space(cache_root(), _SPACE_GIBIBYTES)
    ensure_engine(progress)
    # A tag holds no `+`, as the chart knows, too.
    tag = yaml.safe_load(_CHART.read_text(encoding="utf-8"))["appVersion"].replace("+", "_")
    # Side by side: compiling fills the cores while Debian's and Python's packages come over the network.
    with ThreadPoolExecutor() as pool:
        building = pool.submit(ensure_service_image, tag, progress)
        tooling = pool.submit(ensure_tool, "helm", progress)
        cluster = ensure_cluster(progress)
        if is_airgapped(cluster):
            load_images(cluster, ensure_images(progress), progress)
        ensure_ingress_controller(cluster, progress)
        tooling.result()
        if load_images(cluster, [building.result()], progress):
            restart_workloads(cluster, progress)
    progress.say(f"cluster {cluster.name} is up: context {cluster.context}", style="bold green")


def down(progress: Progress) -> None:
    """Delete the cluster and stop the engine, if it is ours."""
    if engine_answers():
        delete_cluster(progress)
    stop_engine(progress)
    progress.say("nothing is left running")


def airgap(progress: Progress) -> None:
    """Build every image from package registries, whether or not stock images can be pulled."""
    ensure_engine(progress)
    for image in (ensure_node_image(progress), ensure_python_image(progress)):
        progress.say(f"{image}: ready")


def tools(progress: Progress) -> None:
    """Build the programs that are not on PATH, fetch the schemas of custom resources, install checkov."""
    for name, path in ensure_tools(progress).items():
        progress.say(f"{name}: {path}")
    progress.say(f"schemas of {len(ensure_schemas(progress))} custom resources: ready")
    progress.say(f"checkov: {ensure_checkov(progress)[0]}")


def main() -> int:
    """Run one command; 0 when done, 1 when something failed, 2 on wrong usage."""
    commands = {command.__name__: command for command in (up, down, airgap, tools)}
    parser = argparse.ArgumentParser(prog="python -m harness.cluster")
    choices = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        choices.add_parser(name, help=command.__doc__)
    progress = Progress()
    try:
        commands[parser.parse_args().command](progress)
    except Failure as failure:
        progress.say(str(failure), style="bold red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
