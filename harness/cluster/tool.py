"""Finds the programs that the harness drives: the pinned ones built from Go modules, else the user's own."""

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

from harness.cluster import version
from harness.cluster.cache import cached, content_key, part_folder
from harness.cluster.progress import Progress
from harness.failure import Failure
from harness.process import run

_BUILD_SECONDS_MAX: Final = 1800
_DOWNLOAD_SECONDS_MAX: Final = 600
# One program links, on one core, while the other compiles.
_BUILDS_AT_ONCE: Final = 2


def find_tool(name: str) -> Path:
    """Return the path of `name`: the pinned version in the cache if it was built, else what PATH has.

    Raises:
        Failure: It is in neither place; the remedy says how to get it.
    """
    if (module := _module_of(name)) and (built := part_folder(_part(module), _key(module)) / name).exists():
        return built
    if found := shutil.which(name):
        return Path(found)
    raise Failure(f"{name} is not installed", "run `make tools`, or put it on PATH")


def ensure_tool(name: str, progress: Progress) -> Path:
    """Return `find_tool(name)`, building the pinned version with Go when there is none."""
    try:
        return find_tool(name)
    except Failure:
        if module := _module_of(name):
            build_programs(module, progress)
        return find_tool(name)


def ensure_tools(progress: Progress) -> dict[str, Path]:
    """Return the path of every tool by its name, building those that neither the cache nor PATH has."""

    def ensure(module: version.GoModule) -> dict[str, Path]:
        return {name: ensure_tool(name, progress) for name in module.programs}

    with ThreadPoolExecutor(_BUILDS_AT_ONCE) as pool:
        return {name: path for found in pool.map(ensure, version.GO_TOOLS) for name, path in found.items()}


def build_programs(module: version.GoModule, progress: Progress, expected_seconds: float | None = None) -> Path:
    """Return the folder with the programs of a module, statically linked; built once for each version.

    Args:
        module: The module and its programs.
        progress: Says what is compiled.
        expected_seconds: How long it took when it was measured.
    """
    step = progress.step(f"compiling {' and '.join(module.programs)} {module.version}", expected_seconds)
    return cached(_part(module), _key(module), lambda scratch: _build(module, scratch), step)


def download_module(module: str) -> Path:
    """Return the folder of the source of `path@version` in Go's cache; it may only be read."""
    asked = [str(find_go()), "mod", "download", "-json", module]
    return Path(json.loads(run(asked, timeout_seconds=_DOWNLOAD_SECONDS_MAX).stdout)["Dir"])


def go_install(
    bin_folder: Path, *packages: str, tags: str = "", stamps: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Build Go programs, statically linked and stripped, into `bin_folder`; `stamps` sets variables of theirs."""
    run(
        [str(find_go()), "install", *_options(tags, stamps), *packages],
        env={"GOBIN": str(bin_folder), "CGO_ENABLED": "0"},
        timeout_seconds=_BUILD_SECONDS_MAX,
    )


def link_flags(stamps: Mapping[str, str]) -> str:
    """Return the linker's flags that strip a program and set string variables of it by their full names."""
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])


def find_go() -> Path:
    """Return the Go compiler.

    Raises:
        Failure: There is none; without images to pull, everything is compiled.
    """
    found = shutil.which("go")
    if not found:
        raise Failure("Go is not installed, and nothing prebuilt can be pulled", "install Go 1.26 or newer")
    return Path(found)


def _module_of(name: str) -> version.GoModule | None:
    return next((module for module in version.GO_TOOLS if name in module.programs), None)


def _part(module: version.GoModule) -> str:
    return f"go-{next(iter(module.programs))}"


def _key(module: version.GoModule) -> str:
    return content_key(repr(module))


def _build(module: version.GoModule, folder: Path) -> None:
    with TemporaryDirectory() as scratch:
        built = Path(scratch) / "bin"
        if module.blank:
            _build_in_copy(module, Path(scratch) / "source", built)
        else:
            packages = [f"{module.path}/{place}".removesuffix("/.") for place in module.programs.values()]
            go_install(
                built, *(f"{package}@{module.version}" for package in packages), tags=module.tags, stamps=module.stamps
            )
        for name, place in module.programs.items():
            shutil.move(built / (Path(place).name or name), folder / name)


def _build_in_copy(module: version.GoModule, source: Path, bin_folder: Path) -> None:
    """Go refuses to lay a file over one of its module cache, so a copy of the module gets the blank one."""
    shutil.copytree(download_module(module.name), source, copy_function=shutil.copyfile)
    for folder in (source, *source.rglob("*/")):
        folder.chmod(0o755)
    blank = source / module.blank
    blank.parent.mkdir(parents=True)
    blank.touch()
    run(
        [
            *(str(find_go()), "install", "-buildvcs=false", *_options(module.tags, module.stamps)),
            *(f"./{place}" for place in module.programs.values()),
        ],
        cwd=source,
        env={"GOBIN": str(bin_folder), "CGO_ENABLED": "0"},
        timeout_seconds=_BUILD_SECONDS_MAX,
    )


def _options(tags: str, stamps: Mapping[str, str]) -> list[str]:
    return ["-trimpath", "-ldflags", link_flags(stamps), *(["-tags", tags] if tags else [])]
