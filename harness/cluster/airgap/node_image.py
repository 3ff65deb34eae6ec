"""Assembles the node image: kind's base files, Debian, containerd, Kubernetes, and the images a cluster starts with.

kind's own files are read from its module at build time. The images are preloaded, as in the stock node image:
they are imported by the containerd of a running container, which is then committed.
"""

import json
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from harness.cluster import host, version
from harness.cluster.airgap import part
from harness.cluster.airgap.published import ensure_images
from harness.cluster.cache import content_key
from harness.cluster.docker import build_image, has_image, import_root, save_images_into
from harness.cluster.progress import Progress
from harness.cluster.tool import download_module
from harness.failure import Failure
from harness.process import run

_HERE: Final = Path(__file__).parent
_RUNC_WRAPPER: Final = _HERE.parent / "runc-without-sys-resource.sh"
_COMPONENTS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd")
_NODE_PROGRAMS: Final = ("kubelet", "kubeadm", "kubectl")
_METRICS_SERVER_IMAGE: Final = f"registry.k8s.io/metrics-server/metrics-server:{version.METRICS_SERVER}"


def ensure_node_image(progress: Progress) -> str:
    """Return the name of the air-gapped node image, building what is missing of it."""
    workers = (part.node_root, part.kubernetes, part.containerd, part.local_path_provisioner, _kind_module)
    # Compiling fills the cores, debootstrap and downloads mostly wait: side by side they hide each other.
    with ThreadPoolExecutor(len(workers) + 1) as pool:
        publishing = pool.submit(ensure_images, progress)
        root, kubernetes, containerd, provisioner, kind = pool.map(lambda build: build(progress), workers)
        published = [name for names in publishing.result() for name in names]
    patched = host.lacks_sys_resource()
    key = content_key(
        *(folder.name for folder in (root, kubernetes, containerd, provisioner)),
        *published,
        version.KIND,
        str(patched),
        _HERE / "Dockerfile.node",
        _RUNC_WRAPPER,
        Path(__file__),
    )
    image = f"jarvis/node:{version.KUBERNETES}-{key}"
    if has_image(image):
        return image
    with progress.step("assembling the node image", 60), TemporaryDirectory() as scratch:
        base = import_root(root / "root.tar", f"jarvis/node-root:{root.name.rpartition('-')[2]}")
        names = _image_names(kubernetes)
        storage, storage_names = _storage(kind)
        context = Path(scratch) / "node"
        _lay_out_node(context, kind, kubernetes, containerd, pause=names["pause"], storage=storage, patched=patched)
        build_image(context, f"{image}-base", {"BASE": base})
        images = _component_images(
            Path(scratch), base=base, kubernetes=kubernetes, provisioner=provisioner, names=names | storage_names
        )
        _preload(f"{image}-base", image, [*images, *published])
    return image


def _kind_module(progress: Progress) -> Path:
    """The source of kind in the module cache: its node's base files and its default storage manifest."""
    del progress
    return download_module(version.KIND_MODULE.name)


def _image_names(kubernetes: Path) -> dict[str, str]:
    """Component name to the image name that kubeadm expects."""
    with TemporaryDirectory() as scratch:
        kubeadm = Path(scratch) / "kubeadm"
        kubeadm.symlink_to(kubernetes / "kubernetes")
        listed = run([str(kubeadm), "config", "images", "list", "--kubernetes-version", version.KUBERNETES])
    return {line.rpartition("/")[2].partition(":")[0]: line for line in listed.stdout.split()}


def _lay_out_node(
    context: Path, kind: Path, kubernetes: Path, containerd: Path, *, pause: str, storage: str, patched: bool
) -> None:
    tree = context / "tree"
    shutil.copytree(kind / "images/base/files", tree)
    run(["chmod", "-R", "u+w", str(tree)])
    for script in [*(tree / "usr/local/bin").iterdir(), *(tree / "kind/bin").iterdir()]:
        script.chmod(0o755)
    for program in containerd.iterdir():
        shutil.copy(program, tree / "usr/local/bin" / program.name)
    (tree / "usr/bin").mkdir(parents=True)
    shutil.copy(kubernetes / "kubernetes", tree / "usr/bin/kubernetes")
    for name in _NODE_PROGRAMS:
        (tree / "usr/bin" / name).symlink_to("kubernetes")
    (tree / "kind/version").write_text(version.KUBERNETES, encoding="ascii")
    (tree / "kind/manifests").mkdir()
    (tree / "kind/manifests/default-storage.yaml").write_text(storage, encoding="utf-8")

    config = tree / "etc/containerd/config.toml"
    text = re.sub(r'sandbox_image = ".*"', f'sandbox_image = "{pause}"', config.read_text(encoding="utf-8"))
    if patched:
        text = text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
        for unit in (tree / "etc/systemd/system").rglob("*.service"):
            unit.write_text(_without_limits(unit.read_text(encoding="utf-8")), encoding="utf-8")
        (tree / "usr/local/sbin").mkdir(parents=True)
        shutil.copy(_RUNC_WRAPPER, tree / "usr/local/sbin/runc")
    config.write_text(text, encoding="utf-8")
    shutil.copy(_HERE / "Dockerfile.node", context / "Dockerfile")


def _without_limits(unit: str) -> str:
    return "".join(line for line in unit.splitlines(keepends=True) if not re.match(r"OOMScoreAdjust=-|Limit\w+=", line))


def _storage(kind: Path) -> tuple[str, dict[str, str]]:
    """The default storage manifest of kind, and the images that it uses by the Go constant that holds them."""
    source = (kind / "pkg/build/nodeimage/const_storage.go").read_text(encoding="utf-8")
    constants = dict(re.findall(r'const (\w+) = "([^"]+)"', source))
    found = re.search(r"const defaultStorageManifest = `(.*)`\n", source, re.DOTALL)
    if not found:
        raise Failure(f"kind {version.KIND} no longer holds its storage manifest where it was", "pin kind's version")
    return re.sub(r"` \+ (\w+) \+ `", lambda match: constants[match[1]], found[1]), constants


def _component_images(
    scratch: Path, *, base: str, kubernetes: Path, provisioner: Path, names: dict[str, str]
) -> list[str]:
    """Build the images that a cluster starts with; return their names. The big layer is one, under many names."""

    def components(tree: Path) -> None:
        programs = tree / "usr/local/bin"
        shutil.copy(kubernetes / "kubernetes", programs / "kubernetes")
        for name in (*_COMPONENTS, "coredns", "metrics-server"):
            (programs / name).symlink_to("kubernetes")
        _copy_proxy_programs(base, tree)

    def pause(tree: Path) -> None:
        shutil.copy(kubernetes / "pause", tree / "pause")

    def storage_provisioner(tree: Path) -> None:
        shutil.copy(provisioner / "local-path-provisioner", tree / "usr/local/bin/local-path-provisioner")

    def storage_helper(tree: Path) -> None:
        (tree / "bin").mkdir()
        _copy_from_image(base, ["/bin/busybox"], tree)
        for name in ("sh", "mkdir", "rm"):
            (tree / "bin" / name).symlink_to("busybox")

    many = [names[name] for name in _COMPONENTS]
    return [
        *_scratch_image(scratch / "components", components, "", *many),
        _entered_image(scratch / "coredns", many[0], "/usr/local/bin/coredns", names["coredns"]),
        _entered_image(scratch / "metrics", many[0], "/usr/local/bin/metrics-server", _METRICS_SERVER_IMAGE),
        *_scratch_image(scratch / "pause", pause, "/pause", names["pause"]),
        *_scratch_image(scratch / "provisioner", storage_provisioner, "", names["storageProvisionerImage"]),
        *_scratch_image(scratch / "helper", storage_helper, "/bin/sh", names["storageHelperImage"]),
    ]


def _scratch_image(context: Path, lay_out: Callable[[Path], None], entrypoint: str, *names: str) -> tuple[str, ...]:
    tree = context / "tree"
    (tree / "usr/local/bin").mkdir(parents=True)
    (tree / "tmp").mkdir(mode=0o1777)
    lay_out(tree)
    lines = ["FROM scratch", "COPY tree /", "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    if entrypoint:
        lines.append(f"ENTRYPOINT {json.dumps([entrypoint])}")
    (context / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build_image(context, names[0])
    for name in names[1:]:
        run(["docker", "tag", names[0], name])
    return names


def _entered_image(context: Path, base: str, entrypoint: str, name: str) -> str:
    """The same layers under another name, with the entry point that the component's manifest counts on."""
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {base}\nENTRYPOINT {json.dumps([entrypoint])}\n", encoding="utf-8")
    build_image(context, name)
    return name


def _copy_proxy_programs(base: str, tree: Path) -> None:
    """kube-proxy runs iptables and nft: copy them, their extensions, and the libraries that any of these load."""
    programs = ["/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi", "/usr/sbin/nft", "/usr/sbin/conntrack"]
    find = f"ls -d {' '.join(programs)} /usr/lib/*/xtables/*.so"
    in_base = ["docker", "run", "--rm", "--entrypoint", "/bin/sh", base, "-c"]
    files = run([*in_base, find]).stdout.split()
    libraries = re.findall(r"(/\S+) \(0x", run([*in_base, f"ldd $({find})"]).stdout)
    _copy_from_image(base, [*files, *sorted(set(libraries))], tree)
    for name in ("iptables", "ip6tables"):
        for action in ("", "-save", "-restore"):
            (tree / "usr/sbin" / f"{name}{action}").symlink_to("xtables-nft-multi")


def _copy_from_image(image: str, paths: list[str], tree: Path) -> None:
    """Copy files and folders out of an image, following links, to the same places under `tree`."""
    container = f"jarvis-copy-{uuid.uuid4().hex[:8]}"
    pack = ["/bin/sh", image, "-c", 'tar --dereference -C / -cf - "$@" > /copy.tar', "sh"]
    archive = tree.with_suffix(".tar")
    relative = [path.lstrip("/") for path in paths]
    try:
        run(["docker", "create", "--name", container, "--entrypoint", *pack, *relative])
        run(["docker", "start", "--attach", container])
        run(["docker", "cp", f"{container}:/copy.tar", str(archive)])
        run(["tar", "-C", str(tree), "-xf", str(archive)])
    finally:
        run(["docker", "rm", "-f", container], check=False)
        archive.unlink(missing_ok=True)


def _preload(base: str, image: str, images: list[str]) -> None:
    container = f"jarvis-preload-{uuid.uuid4().hex[:8]}"
    try:
        run(["docker", "run", "-d", "--privileged", "--name", container, "--entrypoint", "sleep", base, "infinity"])
        run(["docker", "exec", "-d", container, "containerd"])
        save_images_into(container, images)
        run(["docker", "exec", container, "pkill", "-TERM", "-x", "containerd"])
        run(
            ["docker", "exec", container, "sh", "-c", "while pgrep -x containerd >/dev/null; do sleep 0.2; done"],
            timeout_seconds=60,
        )
        entrypoint = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        run(["docker", "commit", "--change", entrypoint, "--change", "CMD []", container, image])
    finally:
        run(["docker", "rm", "-f", container], check=False)
