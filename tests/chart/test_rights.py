"""Who may do what in the namespace: a token only where a Role is, a Role only where it is used, and no more in it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.conftest import Manifest
from tests.chart.matrix import CASES
from tests.chart.restricted import pods_of

# What nobody can narrow to names, and what gives nothing away: objects that are yet to be, and where pods are.
_UNNAMED = (
    ({"create"}, {"secrets", "configmaps", "persistentvolumeclaims"}),
    ({"get", "list", "watch"}, {"pods", "services", "endpointslices"}),
)
_NEVER = {"*", "escalate", "bind", "impersonate", "deletecollection", "pods/exec", "serviceaccounts/token"}
# What each component may do at most, by the component of its pods; all others have no right at all.
_VERBS = {
    "secret-hook": {"create"},
    "fill-hook": {"get", "update"},
    "renewal": {"get", "update"},
    "prometheus": {"get", "list", "watch"},
}


@pytest.fixture(scope="module", params=CASES)
def manifests(request: pytest.FixtureRequest, rendered: Callable[[str], list[Manifest]]) -> list[Manifest]:
    return rendered(request.param)


def _of(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {body["metadata"]["name"]: body for body in manifests if body["kind"] == kind}


def _bound(manifests: list[Manifest]) -> dict[str, str]:
    """The Role of each ServiceAccount."""
    bound = {}
    for binding in _of(manifests, "RoleBinding").values():
        [subject] = binding["subjects"]
        assert ("ServiceAccount", "jarvis-system") == (subject["kind"], subject["namespace"])
        assert subject["name"] not in bound
        bound[subject["name"]] = binding["roleRef"]["name"]
    return bound


def test_a_token_is_mounted_only_where_a_role_is(manifests: list[Manifest]):
    bound = _bound(manifests)
    for body in manifests:
        for pod in pods_of(body):
            place = (body["kind"], body["metadata"]["name"])
            spec = pod["spec"]
            assert (spec.get("serviceAccountName", "default") in bound) == spec["automountServiceAccountToken"], place
            assert "serviceAccountToken" not in str(spec.get("volumes", [])), place


def test_each_account_is_that_of_one_component_and_gives_no_token_by_itself(manifests: list[Manifest]):
    users: dict[str, set[str]] = {}
    for body in manifests:
        for pod in pods_of(body):
            if name := pod["spec"].get("serviceAccountName"):
                users.setdefault(name, set()).add(body["metadata"]["labels"]["app.kubernetes.io/component"])
    accounts, bound = _of(manifests, "ServiceAccount"), _bound(manifests)

    assert set(users) == set(accounts)
    assert [] == [name for name, account in accounts.items() if account["automountServiceAccountToken"]]
    assert [] == [name for name in bound if len(users[name]) != 1]


def test_each_role_is_bound_once_and_allows_no_more_than_its_component_does(manifests: list[Manifest]):
    roles, bound = _of(manifests, "Role"), _bound(manifests)

    assert sorted(roles) == sorted(bound.values())
    assert {} == _of(manifests, "ClusterRole") == _of(manifests, "ClusterRoleBinding")
    for name, role in roles.items():
        allowed = _VERBS[role["metadata"]["labels"]["app.kubernetes.io/component"]]
        assert role["rules"], name
        for rule in role["rules"]:
            assert set(rule["verbs"]) <= allowed, (name, rule)
            assert not _NEVER & {each for field in rule.values() for each in field}, (name, rule)
            assert rule.get("resourceNames") or _may_be_unnamed(rule), (name, rule)


def test_no_account_that_may_create_a_secret_may_read_one(manifests: list[Manifest]):
    """A Secret of type service-account-token gets a token of the account that it names, for whoever reads it."""
    roles = _of(manifests, "Role")
    for account, role in _bound(manifests).items():
        verbs = {verb for rule in roles[role]["rules"] if "secrets" in rule["resources"] for verb in rule["verbs"]}
        assert verbs in (set(), {"create"}, {"get", "update"}), account
        mounted = [
            volume
            for body in manifests
            for pod in pods_of(body)
            if pod["spec"].get("serviceAccountName") == account and "create" in verbs
            for volume in pod["spec"].get("volumes", [])
        ]
        assert [] == mounted, account


def _may_be_unnamed(rule: dict[str, Any]) -> bool:
    return "resourceNames" not in rule and any(
        set(rule["verbs"]) <= verbs and set(rule["resources"]) <= resources for verbs, resources in _UNNAMED
    )


@pytest.mark.parametrize(
    "rule",
    [
        {"resources": ["secrets"], "verbs": ["get"]},
        {"resources": ["secrets"], "verbs": ["create", "list"]},
        {"resources": ["pods"], "verbs": ["create"]},
        {"resources": ["secrets"], "verbs": ["get"], "resourceNames": []},
    ],
)
def test_a_rule_without_names_is_refused_where_it_could_have_some(rule: dict[str, Any]):
    assert not (rule.get("resourceNames") or _may_be_unnamed(rule))
