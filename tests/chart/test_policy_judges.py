"""checkov and kube-score find nothing but what tests/chart/exemptions.py lets be: in any values file, with all on."""

import copy
from collections.abc import Callable

import pytest

from tests.chart.conftest import Manifest
from tests.chart.exemptions import EXEMPTIONS, Exemption
from tests.chart.judge import Finding, judge
from tests.chart.matrix import INSTALLED

Rendered = Callable[[str], list[Manifest]]


@pytest.fixture(scope="module")
def findings(rendered: Rendered) -> set[Finding]:
    return judge({name: rendered(name) for name in INSTALLED})


@pytest.mark.parametrize("name", INSTALLED)
def test_nothing_is_found_but_what_is_exempt(findings: set[Finding], name: str):
    found = {finding for finding in findings if finding.case == name}

    assert set() == {finding for finding in found if not any(exempt.covers(finding) for exempt in EXEMPTIONS)}


@pytest.mark.parametrize("exemption", EXEMPTIONS, ids=lambda exemption: f"{exemption.check}:{exemption.objects}")
def test_every_exemption_still_lets_something_be_and_says_why(findings: set[Finding], exemption: Exemption):
    assert any(exemption.covers(finding) for finding in findings)
    assert (True, True) == (exemption.reason[0].isupper(), exemption.reason.endswith("."))


def test_both_judges_see_a_container_that_may_do_anything(rendered: Rendered):
    manifests = copy.deepcopy(rendered("production"))
    backend = next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Deployment", "jarvis-backend"))
    [container] = backend["spec"]["template"]["spec"]["containers"]
    container["securityContext"] = {"privileged": True}
    del container["resources"]
    found = {finding[:3] for finding in judge({"bad": manifests})}

    assert {
        ("checkov", "CKV_K8S_16", "Deployment/jarvis-backend"),
        ("checkov", "CKV_K8S_11", "Deployment/jarvis-backend"),
        ("kube-score", "container-security-context-privileged", "Deployment/jarvis-backend"),
        ("kube-score", "container-resources", "Deployment/jarvis-backend"),
    } <= found


def test_an_exemption_covers_its_check_and_its_objects_alone():
    exemption = Exemption("checkov", "CKV_K8S_8", "Pod/jarvis-test-*", "Once.", cases="kind")

    assert [True, False, False, False, False] == [
        exemption.covers(Finding(*finding))
        for finding in (
            ("checkov", "CKV_K8S_8", "Pod/jarvis-test-health", "kind"),
            ("checkov", "CKV_K8S_9", "Pod/jarvis-test-health", "kind"),
            ("kube-score", "CKV_K8S_8", "Pod/jarvis-test-health", "kind"),
            ("checkov", "CKV_K8S_8", "Deployment/jarvis-backend", "kind"),
            ("checkov", "CKV_K8S_8", "Pod/jarvis-test-health", "production"),
        )
    ]
