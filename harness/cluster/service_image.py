"""Builds the service image: a Python base, wheels fetched on the host, and the service's own code."""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.cluster import version
from harness.cluster.airgap.part import python_root
from harness.cluster.cache import cached, content_key
from harness.cluster.docker import build_image, has_image, import_root, pull_image
from harness.cluster.progress import Progress
from harness.process import run

_ROOT: Final = Path(__file__).parents[2]
_REQUIREMENTS: Final = _ROOT / "requirements/service.txt"
_SERVICE: Final = _ROOT / "crdt_service"
_DOCKERFILE: Final = _ROOT / "image/Dockerfile"
_DOWNLOAD_SECONDS_MAX: Final = 900


def ensure_service_image(tag: str, progress: Progress, service: Path = _SERVICE) -> tuple[str, str]:
    """Return the two names of a service image, building it if its inputs changed.

    The first has the tag that the chart names, the second the hash of its inputs, which says whether to rebuild.

    Args:
        tag: What the first is tagged with.
        progress: Says what is built.
        service: The package `crdt_service`: that of this checkout, or one of an earlier release.
    """
    base = ensure_python_image(progress)
    key = content_key(base, _REQUIREMENTS, service, _DOCKERFILE)
    image, built = f"{version.SERVICE_IMAGE}:{tag}", f"{version.SERVICE_IMAGE}:{key}"
    if not has_image(built):
        wheels = cached("site", content_key(_REQUIREMENTS), _install_wheels)
        with progress.step("building the service image", 10), TemporaryDirectory() as scratch:
            context = Path(scratch)
            shutil.copytree(wheels, context / "site")
            shutil.copytree(service, context / "crdt_service", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(_DOCKERFILE, context)
            build_image(context, built, {"BASE": base})
    run(["docker", "tag", built, image])
    return image, built


def ensure_python_image(progress: Progress) -> str:
    """Return the base image: `$JARVIS_BASE_IMAGE`, else the published slim Python, else Debian's own Python."""
    chosen = os.environ.get("JARVIS_BASE_IMAGE")
    if chosen:
        return chosen
    if has_image(version.PUBLISHED_PYTHON_IMAGE) or pull_image(version.PUBLISHED_PYTHON_IMAGE):
        return version.PUBLISHED_PYTHON_IMAGE
    root = python_root(progress)
    return import_root(root / "root.tar", f"jarvis/python:{root.name.rpartition('-')[2]}")


def _install_wheels(scratch: Path) -> None:
    """Install the pinned wheels for the image's Python 3.11; inside a build no registry need be reachable."""
    run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--require-hashes", "--no-deps"),
            *("--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3"),
            *("--abi=none", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64", "--platform=any"),
            *("--target", str(scratch), "--requirement", str(_REQUIREMENTS)),
        ],
        timeout_seconds=_DOWNLOAD_SECONDS_MAX,
    )
