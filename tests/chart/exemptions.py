"""What checkov and kube-score find and we let be, each with its reason; one that lets nothing be is an error."""

from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from tests.chart.judge import Finding


class Exemption(NamedTuple):
    """Findings that are let be, since `reason`: of a check, on objects `Kind/name` and cases like the patterns."""

    judge: str
    check: str
    objects: str
    reason: str
    cases: str = "*"

    def covers(self, finding: Finding) -> bool:
        """Return whether a finding is one of these."""
        is_like = fnmatchcase(finding.object, self.objects) and fnmatchcase(finding.case, self.cases)
        return self[:2] == finding[:2] and is_like


_TAGS = (
    "Tags of releases never move, and `Always` would let no pod start while the registry is away; image.pull_policy."
)
_ONCE = "The pod of a `helm test` runs once; nothing waits for it, and nothing restarts it."
_ALONE = (
    "The bundled monitoring is one pod each: who wants more has a stack, which monitoring.stack hands everything to."
)
_VOLUME = "Its volume is mounted by one pod at a time, so the old one goes before the new one comes."
_TOKEN = (
    "It creates Secrets through the Kubernetes API and reads none, or reads and writes named ones and creates none."
)

EXEMPTIONS: Final = (
    Exemption("checkov", "CKV_K8S_15", "*", _TAGS),
    Exemption("kube-score", "container-image-pull-policy", "*", _TAGS),
    Exemption(
        "checkov", "CKV_K8S_43", "*", "Who wants a digest sets image.digest; the chart cannot know a registry's."
    ),
    Exemption("checkov", "CKV_K8S_8", "Pod/jarvis-test-*", _ONCE),
    Exemption("checkov", "CKV_K8S_9", "Pod/jarvis-test-*", _ONCE),
    Exemption("checkov", "CKV_K8S_38", "Job/jarvis-secret-hook", _TOKEN),
    Exemption("checkov", "CKV_K8S_38", "Job/jarvis-fill-hook", _TOKEN),
    Exemption("checkov", "CKV_K8S_38", "CronJob/jarvis-tls", _TOKEN),
    Exemption(
        "checkov",
        "CKV_K8S_38",
        "Deployment/jarvis-prometheus",
        "It asks the Kubernetes API which pods it shall scrape.",
    ),
    Exemption(
        "kube-score",
        "deployment-has-host-podantiaffinity",
        "Deployment/jarvis-backend",
        "Its topologySpreadConstraints spread pods over hosts and zones, by number and not in pairs.",
    ),
    # The Deployments of the monitoring: all but the backend.
    Exemption("kube-score", "deployment-replicas", "Deployment/jarvis-[!b]*", _ALONE),
    Exemption("kube-score", "deployment-strategy", "Deployment/jarvis-[!b]*", _VOLUME),
    Exemption(
        "kube-score",
        "deployment-replicas",
        "Deployment/jarvis-backend",
        "One developer needs one backend.",
        cases="development",
    ),
)
