"""What the cluster asks of the container engine, through its command line."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.failure import Failure
from harness.poll import Done, Pending, wait_until
from harness.process import run

_BUILD_SECONDS_MAX: Final = 1200
_CONTAINERD_SECONDS_MAX: Final = 60


def has_image(name: str) -> bool:
    """Whether the engine holds the image."""
    return run(["docker", "image", "inspect", name], check=False).returncode == 0


def pull_image(name: str) -> bool:
    """Pull an image; False where its registry cannot be reached or does not have it."""
    return run(["docker", "pull", "--quiet", name], check=False, timeout_seconds=_BUILD_SECONDS_MAX).returncode == 0


def import_root(archive: Path, name: str) -> str:
    """Make an image of a root file system's tar file, unless there is one; return its name."""
    if not has_image(name):
        run(["docker", "import", str(archive), name], timeout_seconds=_BUILD_SECONDS_MAX)
    return name


def build_image(context: Path, name: str, arguments: Mapping[str, str] | None = None) -> None:
    """Build the Dockerfile in a folder, with the builder that every engine since 20.10 has.

    Without its cache: it takes a tree for unchanged when only symbolic links in it differ, and the callers know better.
    """
    options = [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
    run(
        ["docker", "build", "--quiet", "--no-cache", "--tag", name, *options, str(context)],
        env={"DOCKER_BUILDKIT": "0"},
        timeout_seconds=_BUILD_SECONDS_MAX,
    )


def save_images_into(container: str, images: Sequence[str]) -> None:
    """Stream images into the containerd of a running container.

    Layers stay packed: overlay cannot be mounted on the overlay that the container itself stands on.
    """
    ctr = ["docker", "exec", container, "ctr", "--namespace=k8s.io"]
    wait_until(
        lambda: Done(None) if run([*ctr, "version"], check=False).returncode == 0 else Pending("it does not answer"),
        what="containerd",
        deadline_seconds=_CONTAINERD_SECONDS_MAX,
        interval_seconds=0.5,
    )
    load = [*ctr[:2], "-i", *ctr[2:], "images", "import", "--all-platforms", "--no-unpack", "--digests", "-"]
    with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
        loading = subprocess.run(load, stdin=saving.stdout, capture_output=True, text=True, check=False)
    if saving.returncode or loading.returncode:
        raise Failure(f"images could not be loaded into {container}\n{loading.stderr.strip()}", "is the disk full?")
