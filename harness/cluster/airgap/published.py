"""Images that a cluster elsewhere pulls from their registries, built here under the same names.

The programs are where the published images have them, and run as the same user.
"""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.cluster import contour, version
from harness.cluster.airgap import part
from harness.cluster.cache import content_key
from harness.cluster.docker import build_image, has_image
from harness.cluster.progress import Progress
from harness.cluster.service_image import ensure_python_image
from harness.cluster.tool import build_programs
from harness.process import run

_NOBODY: Final = 65534
# Static programs need nothing but the authorities that they trust.
_STATIC: Final = f"""ARG BASE
FROM ${{BASE}} AS base
FROM scratch
COPY --from=base /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY tree /
USER {_NOBODY}:{_NOBODY}
"""
_DYNAMIC: Final = f"""ARG BASE
FROM ${{BASE}}
COPY tree /
USER {_NOBODY}:{_NOBODY}
"""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How an image is made.

    Attributes:
        name: The name that registries have it under.
        build: Returns the folder that the programs are in.
        programs: Where each file of that folder is in the image; the first is the entry point.
        dockerfile: What they are laid on.
        home: The working directory.
    """

    name: str
    build: Callable[[Progress], Path]
    programs: Mapping[str, str]
    dockerfile: str = _STATIC
    home: str = "/"


def ensure_images(progress: Progress) -> list[tuple[str, str]]:
    """Return both names of each image, building what is missing: the published one, and one with its content's hash."""
    recipes = _recipes()
    with ThreadPoolExecutor(len(recipes)) as pool:
        base = pool.submit(ensure_python_image, progress)
        folders = list(pool.map(lambda recipe: recipe.build(progress), recipes))
    return [_ensure_image(*made, base.result(), progress) for made in zip(recipes, folders, strict=True)]


def _recipes() -> tuple[_Recipe, ...]:
    return (
        _Recipe(
            version.PROMETHEUS_IMAGE,
            lambda progress: build_programs(version.PROMETHEUS_MODULE, progress, 300),
            {"prometheus": "bin/prometheus", "promtool": "bin/promtool"},
            home="/prometheus",
        ),
        _Recipe(
            version.ALERTMANAGER_IMAGE,
            lambda progress: build_programs(version.ALERTMANAGER_MODULE, progress, 300),
            {"alertmanager": "bin/alertmanager", "amtool": "bin/amtool"},
            home="/alertmanager",
        ),
        _Recipe(
            f"ghcr.io/projectcontour/contour:{version.CONTOUR}",
            lambda progress: build_programs(version.CONTOUR_MODULE, progress, 300),
            {"contour": "bin/contour"},
        ),
        _Recipe(contour.envoy_image(contour.read_manifest()), part.envoy, {"envoy": "usr/local/bin/envoy"}, _DYNAMIC),
    )


def _ensure_image(recipe: _Recipe, folder: Path, base: str, progress: Progress) -> tuple[str, str]:
    entry = next(iter(recipe.programs.values()))
    dockerfile = f'{recipe.dockerfile}WORKDIR {recipe.home}\nENTRYPOINT ["/{entry}"]\n'
    built = f"jarvis/{Path(entry).name}:{content_key(folder.name, base, dockerfile, repr(recipe.programs))}"
    if not has_image(built):
        with progress.step(f"building the image {recipe.name}"), TemporaryDirectory() as scratch:
            context = Path(scratch)
            for source, target in recipe.programs.items():
                place = context / "tree" / target
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / source, place)
            (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
            build_image(context, built, {"BASE": base})
    run(["docker", "tag", built, recipe.name])
    return recipe.name, built
