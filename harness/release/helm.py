"""The helm program, and the releases that it stores as Secrets."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.failure import Failure
from harness.kube import Json, Kube, labels_of
from harness.process import CommandError, run
from harness.release.name import CHART, RELEASE

# How long one helm command may take, hooks included; after that nobody is working on a pending release any more.
HELM_SECONDS_MAX = 300
_HELM_VARIABLES = {"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HELM_BURST_LIMIT", "HELM_QPS"}


@dataclass(frozen=True, slots=True)
class HelmRelease:
    """A release's newest revision, as its Secret's labels tell it."""

    secret: str
    revision: int
    status: str
    modified_seconds: int

    @property
    def pending(self) -> bool:
        """Whether a helm command works on it, or was cut off while it did."""
        return self.status.startswith("pending-") or self.status == "uninstalling"


@dataclass(frozen=True, slots=True)
class Helm:
    """The helm program, bound to one context and namespace."""

    program: Path
    context: str
    namespace: str

    def version(self) -> tuple[int, ...]:
        """Return helm's version, such as (3, 22, 0)."""
        command = [str(self.program), "version", "--template", "{{.Version}}"]
        text = run(command, env=_own_environment(), timeout_seconds=30).stdout
        return tuple(int(part) for part in text.strip().lstrip("v").split("-")[0].split("+")[0].split("."))

    def render(self, values: Mapping[str, Any]) -> list[Json]:
        """Return every object that the chart makes of these values, hooks included, without a cluster.

        Raises:
            Failure: The chart refuses the values.
        """
        output = self._run("template", RELEASE, str(CHART), "--skip-tests", "--values", "-", values=values)
        return [body for body in yaml.safe_load_all(output) if body]

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Install or upgrade the release, hooks included, without waiting for the workloads.

        Raises:
            Failure: helm could not; says why.
        """
        # Helm 4 applies on the server, where another field owner (a `kubectl scale`) would stop a repairing deploy.
        own = ["--server-side=true", "--force-conflicts"] if self.version() >= (4,) else []
        arguments = [RELEASE, str(CHART), "--values", "-", "--timeout", f"{HELM_SECONDS_MAX}s", *own]
        self._run("upgrade", "--install", *arguments, values=values)

    def uninstall(self) -> None:
        """Remove the release; one that is gone already is fine."""
        self._run("uninstall", RELEASE, "--ignore-not-found", "--timeout", f"{HELM_SECONDS_MAX}s")

    def _run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        command = [str(self.program), *arguments, "--namespace", self.namespace, "--kube-context", self.context]
        try:
            text = None if values is None else _to_yaml(values)
            # The margin lets helm itself end first, and record the failure in the release.
            return run(command, input=text, env=_own_environment(), timeout_seconds=HELM_SECONDS_MAX + 60).stdout
        except CommandError as error:
            raise Failure(
                f"helm {arguments[0]} failed: {error.stderr_tail.removeprefix('Error: ')}",
                "correct what helm names above, then run the same command again",
            ) from error


def _own_environment() -> dict[str, None]:
    """Take away what would lead helm to another cluster, user, namespace or store than its command line says.

    Those of `HELM_*` that only say where files are, or how fast helm may ask, stay.
    """
    foreign = {name for name in os.environ if name.startswith("HELM_") and name not in _HELM_VARIABLES}
    return dict.fromkeys(foreign | {"KUBERNETES_MASTER"})


def _to_yaml(values: Mapping[str, Any]) -> str:
    """Return values as JSON that a reader of YAML takes for the same.

    Such a reader takes no character that is escaped as two halves, and folds lines at some characters as they are.
    """
    return re.sub(r"[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(values, ensure_ascii=False))


def chart_version() -> str:
    """Return the version in the chart's Chart.yaml."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"])


def read_release(kube: Kube, namespace: str) -> HelmRelease | None:
    """Return the release's newest revision, or None when helm has none."""
    found = kube.read_all("secrets", namespace, labels=f"owner=helm,name={RELEASE}")
    releases = [
        HelmRelease(
            secret=body["metadata"]["name"],
            revision=int(labels_of(body).get("version", "0")),
            status=labels_of(body).get("status", "unknown"),
            modified_seconds=int(labels_of(body).get("modifiedAt") or labels_of(body).get("createdAt") or 0),
        )
        for body in found
    ]
    return max(releases, key=lambda release: release.revision, default=None)


def clear_pending(kube: Kube, namespace: str, now_seconds: float) -> bool:
    """Forget a revision that a helm command left half done, so that the next one can start; return whether it did.

    The objects that the revision made stay, and the next upgrade adopts them.

    Raises:
        Failure: A helm command may still be working on it.
    """
    release = read_release(kube, namespace)
    if release is None or not release.pending:
        return False
    age_seconds = now_seconds - release.modified_seconds
    if age_seconds < HELM_SECONDS_MAX:
        raise Failure(
            f"helm's revision {release.revision} of {RELEASE} in {namespace} is {release.status} "
            f"since {age_seconds:.0f} s: another command is working on it, or was cut off",
            f"wait for that command; if none is running, run this again in {HELM_SECONDS_MAX - age_seconds:.0f} s",
        )
    kube.delete("secrets", namespace, release.secret)
    return True
