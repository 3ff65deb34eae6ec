"""Facts about this machine that decide how containers can run on it."""

import os
import shutil
import threading
from pathlib import Path
from typing import Final

from harness.cluster.progress import Progress
from harness.failure import Failure
from harness.process import run

_CAP_SYS_RESOURCE: Final = 24
_GIBIBYTE: Final = 1 << 30
_INSTALL_SECONDS_MAX: Final = 900
# apt-get fails while another one works, and parts that are built side by side may want the same program.
_installing: Final = threading.Lock()


def lacks_sys_resource() -> bool:
    """Whether CAP_SYS_RESOURCE is missing from the bounding set, so that privileged containers cannot start as is."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "CapBnd":
            return not int(value, 16) >> _CAP_SYS_RESOURCE & 1
    return False


def require_root(purpose: str) -> None:
    """Raise a Failure with the remedy unless this process is root."""
    if os.geteuid() != 0:
        raise Failure(
            f"root is needed to {purpose}",
            "start a container engine (Docker) that your user may use, or run this command with sudo",
        )


def require_free_space(folder: Path, gibibytes: float) -> None:
    """Raise a Failure with the remedy if the disk under `folder` has less than `gibibytes` free."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / _GIBIBYTE
    if free < gibibytes:
        raise Failure(
            f"{existing}: {free:.1f} GiB free, {gibibytes:.0f} GiB needed",
            "free some space, or set JARVIS_CACHE to a folder on a larger disk",
        )


def ensure_program(name: str, package: str, progress: Progress) -> None:
    """Install a Debian package unless its program is on PATH.

    Raises:
        Failure: The program is missing and this is no Debian, or not root.
    """
    if shutil.which(name):
        return
    if not shutil.which("apt-get"):
        raise Failure(f"{name} is not installed", f"install {package} with your system's package manager")
    require_root(f"install {package}")
    with _installing:
        if shutil.which(name):
            return
        with progress.step(f"installing {package} from Debian's packages", 40):
            run(["apt-get", "update", "-q"], timeout_seconds=_INSTALL_SECONDS_MAX)
            run(
                ["apt-get", "install", "-qy", "--no-install-recommends", package],
                env={"DEBIAN_FRONTEND": "noninteractive"},
                timeout_seconds=_INSTALL_SECONDS_MAX,
            )
