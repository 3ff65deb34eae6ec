"""The scripts of `helm test` against real processes."""

import json
import subprocess
import sys

import pytest

from loadtests.cluster import ROOT, LoopbackCluster
from tests.loopback.request import ask

CHECKS = ROOT / "charts/jarvis/checks"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with LoopbackCluster(tmp_path_factory.mktemp("secured"), tls=True, api_keys=True) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with LoopbackCluster(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(params=["secured", "plain"])
def cluster(request):
    return request.getfixturevalue(request.param)


def run_check(name, *arguments):
    """Run a script as its pod does: its text is an argument."""
    command = [sys.executable, "-c", (CHECKS / f"{name}.py").read_text(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def authority_of(cluster):
    return cluster.authority.file if cluster.authority else ""


def keys_of(cluster):
    return [item["key"] for item in ask(cluster, "GET", "/v1/keys").json()["keys"]]


def test_a_write_is_read_back_and_leaves_no_key(cluster):
    token = cluster.token_file if cluster.api_keys else ""

    done = run_check("write", cluster.url, authority_of(cluster), token)

    assert (0, "written, read and deleted") == (done.returncode, done.stdout.splitlines()[-1]), done.stderr
    assert [] == keys_of(cluster)


def test_the_health_is_shown_and_judged(cluster):
    done = run_check("health", cluster.url, authority_of(cluster))

    assert (0, "healthy") == (done.returncode, json.loads(done.stdout)["status"])


def test_a_key_that_is_refused_or_missing_fails_and_is_told(secured, tmp_path):
    unknown = tmp_path / "token"
    unknown.write_text("jarvis_0000000000000000_" + "0" * 43)
    absent = tmp_path / "absent"
    read_only = tmp_path / "read-only"
    read_only.write_text(secured.create_api_key("--scope", "read"))
    authority = authority_of(secured)

    refused, missing = (run_check("write", secured.url, authority, token) for token in (unknown, absent))
    forbidden = run_check("write", secured.url, authority, read_only)

    assert (1, True) == (refused.returncode, "unauthenticated" in refused.stderr)
    assert (1, True) == (missing.returncode, str(absent) in missing.stderr)
    assert 1 == forbidden.returncode
    assert [] == keys_of(secured)


def test_a_certificate_of_an_unknown_authority_is_not_trusted(secured):
    done = run_check("health", secured.url, "")

    assert (1, True) == (done.returncode, "CERTIFICATE_VERIFY_FAILED" in done.stderr)


def test_an_unhealthy_cluster_fails_both(plain):
    plain.kill("node-1")
    plain.kill("node-2")

    health, write = run_check("health", plain.url, ""), run_check("write", plain.url, "", "")

    assert [1, 1] == [health.returncode, write.returncode]
    assert "expected 200" in write.stderr
