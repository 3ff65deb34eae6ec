"""Finds the programs that the harness drives: the pinned ones built from Go modules, else the user's own."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from harness.cluster import version
from harness.cluster.cache import cache_root
from harness.cluster.progress import Progress
from harness.failure import Failure
from harness.process import run

_BUILD_SECONDS_MAX = 1800


def find_tool(name: str) -> Path:
    """Return the path of `name`: the pinned version in the cache if it was built, else what PATH has.

    Raises:
        Failure: It is in neither place; the remedy says how to get it.
    """
    built = _built_path(name)
    if built.exists():
        return built
    if found := shutil.which(name):
        return Path(found)
    raise Failure(f"{name} is not installed", "run `make tools`, or put it on PATH")


def ensure_tool(name: str, progress: Progress) -> Path:
    """Return `find_tool(name)`, building the pinned version with Go when there is none."""
    try:
        return find_tool(name)
    except Failure:
        progress.say(f"building {name} from {version.GO_TOOLS[name]}")
        go_install(_built_path(name).parent, version.GO_TOOLS[name], stamps=version.TOOL_STAMPS.get(name, {}))
        return find_tool(name)


def go_install(
    bin_folder: Path, *packages: str, tags: str = "", stamps: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Build Go programs, statically linked and stripped, into `bin_folder`; `stamps` sets variables of theirs."""
    tagged = ["-tags", tags] if tags else []
    run(
        [str(find_go()), "install", "-trimpath", "-ldflags", link_flags(stamps), *tagged, *packages],
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


def _built_path(name: str) -> Path:
    pinned_version = version.GO_TOOLS.get(name, "").rpartition("@")[2]
    return cache_root() / "bin" / pinned_version / name
