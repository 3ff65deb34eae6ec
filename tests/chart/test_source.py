"""Where Secrets and certificates come from: whatever a pod asks for is made by somebody, and by no manifest."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

from crdt_service.__main__ import _parser as main_parser
from crdt_service.certificates.renewal import read_wanted
from harness.process import run
from harness.release.name import own_secrets
from tests.chart.conftest import CHART, ROOT, Manifest, Render, find_pods
from tests.chart.crd import validate
from tests.chart.matrix import CASES

_OWN = {
    "cluster": "own-1",
    "encryption": "own-2",
    "api_keys": "own-3",
    "admin_token": "own-4",
    "grafana": "own-9",
    "backup_key": "own-10",
}
_OWN_TLS = {"node": "own-5", "backend": "own-6", "operator": "own-7", "api": "own-8"}
_SECRETS: dict[str, Manifest] = {
    "generated": {},
    "generated, own names": {"names": _OWN},
    "existing": {"source": "existing"},
    "existing, own names": {"source": "existing", "names": _OWN},
    "external": {"source": "external", "external": {"store_name": "vault"}},
    "external, own names": {"source": "external", "names": _OWN, "external": {"store_name": "1e3"}},
}
_CERTIFICATES: dict[str, Manifest] = {
    "self_signed": {},
    "cert_manager": {"source": "cert_manager"},
    "cert_manager, own issuer": {
        "source": "cert_manager",
        "names": _OWN_TLS,
        "cert_manager": {"issuer_name": "own", "issuer_kind": "ClusterIssuer"},
    },
    "existing": {"source": "existing"},
    "existing, own names": {"source": "existing", "names": _OWN_TLS},
}
_JOBS = {"jarvis-secret-hook", "jarvis-fill-hook", "jarvis-tls"}
_SWITCHES = ("enable_tls", "enable_rbac", "encryption_enabled", "api_key_required")


def _values(secrets: str, certificates: str, **switches: bool) -> Manifest:
    return {"security": {"secrets": _SECRETS[secrets], "certificates": _CERTIFICATES[certificates], **switches}}


def _matrix() -> Iterator[tuple[str, str, dict[str, bool]]]:
    for secrets, certificates in zip(_SECRETS, cycle(_CERTIFICATES), strict=False):
        yield secrets, certificates, {}
    for switch in _SWITCHES:
        for secrets, certificates in (("generated", "self_signed"), ("external", "cert_manager"), ("existing",) * 2):
            yield secrets, certificates, {switch: False}


_MATRIX = list(_matrix())
_ROWS = range(len(_MATRIX))
_IDS = ["; ".join([secrets, certificates, *map(str, switches)]) for secrets, certificates, switches in _MATRIX]


@pytest.fixture(scope="module")
def rows(render: Render) -> list[list[Manifest]]:
    """The manifests of each row of the matrix."""
    return [render(_values(secrets, certificates, **switches)) for secrets, certificates, switches in _MATRIX]


def _asked(manifests: list[Manifest]) -> dict[tuple[str, str], set[str]]:
    """Objects that pods cannot start without, by (kind, name), with the entries that they name."""
    asked: dict[tuple[str, str], set[str]] = {}

    def ask(kind: str, reference: Manifest, name: str, entries: list[str]) -> None:
        if not reference.get("optional"):
            asked.setdefault((kind, reference[name]), set()).update(entries)

    for pod in find_pods(manifests):
        for volume in pod.get("volumes", []):
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                for field, kind, name in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")):
                    if reference := source.get(field):
                        at = name if name in reference else "name"
                        ask(kind, reference, at, [item["key"] for item in reference.get("items", [])])
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            for each in container.get("envFrom", []):
                for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                    if field in each:
                        ask(kind, each[field], "name", [])
            for each in container.get("env", []):
                for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                    if reference := each.get("valueFrom", {}).get(field):
                        ask(kind, reference, "name", [reference["key"]])
    return asked


def _made_by_jobs(manifests: list[Manifest]) -> dict[tuple[str, str], set[str]]:
    """What the hooks' containers make, read from their command lines as the service reads them.

    What the first leaves empty is what the second fills.
    """
    made: dict[tuple[str, str], set[str]] = {}
    left_empty, filled = set(), set()
    for manifest in manifests:
        if manifest["metadata"].get("annotations", {}).get("helm.sh/hook", "").find("pre-install") < 0:
            continue
        for pod in find_pods(manifest):
            for container in pod["containers"]:
                options = main_parser().parse_args(container["args"])
                if options.command == "empty":
                    left_empty |= {("Secret", name) for name in options.secret}
                    left_empty |= {("ConfigMap", name) for name in options.configmap}
                elif options.command == "volume":
                    made["PersistentVolumeClaim", options.name] = set()
                elif options.command == "secret":
                    made["Secret", options.name] = {options.key}
                elif options.command == "certificates":
                    peers = [read_wanted(text, is_peer=True)[0] for text in options.peer]
                    servers = [read_wanted(text, is_peer=False)[0] for text in options.server]
                    for name in (options.authority, *peers, *servers):
                        made["Secret", name] = {"tls.crt", "tls.key", "ca.crt"}
                        filled.add(("Secret", name))
                    made["ConfigMap", options.bundle] = {"ca.crt"}
                    filled.add(("ConfigMap", options.bundle))
                elif options.action == "draw":
                    made["Secret", options.token_secret] = {"token"}
                    left_empty.add(("Secret", options.keys_secret))
                else:
                    made["Secret", options.keys_secret] = {"api-keys.json"}
                    filled.add(("Secret", options.keys_secret))
    assert filled == left_empty
    return made


def _made_by_operators(manifests: list[Manifest]) -> dict[tuple[str, str], set[str]]:
    made: dict[tuple[str, str], set[str]] = {}
    for manifest in manifests:
        if manifest["kind"] == "ExternalSecret":
            made["Secret", manifest["spec"]["target"]["name"]] = {
                each["secretKey"] for each in manifest["spec"]["data"]
            }
        elif manifest["kind"] == "Certificate":
            made["Secret", manifest["spec"]["secretName"]] = {"tls.crt", "tls.key", "ca.crt"}
        elif manifest["kind"] in {"ConfigMap", "Secret"}:
            made[manifest["kind"], manifest["metadata"]["name"]] = set(manifest.get("data", {}))
    return made


def _left_to_the_user(secrets: str, certificates: str, enable_rbac: bool) -> set[tuple[str, str]]:
    names = _SECRETS[secrets].get("names", {name: f"jarvis-{name.replace('_', '-')}" for name in _OWN})
    tls = _CERTIFICATES[certificates].get("names", {name: f"jarvis-{name}-tls" for name in _OWN_TLS})
    left = set()
    if secrets.startswith("existing") or (secrets.startswith("generated") and not enable_rbac):
        left |= {("Secret", name) for name in names.values()}
    if certificates.startswith("existing") or (certificates == "self_signed" and not enable_rbac):
        left |= {("Secret", name) for name in tls.values()}
    if certificates == "self_signed" and not enable_rbac:
        left.add(("ConfigMap", "jarvis-ca"))
    return left


@pytest.mark.parametrize("row", _ROWS, ids=_IDS)
def test_whatever_pods_ask_for_is_made_by_exactly_one(rows: list[list[Manifest]], row: int):
    (secrets, certificates, switches), manifests = _MATRIX[row], rows[row]
    by_jobs, by_operators = _made_by_jobs(manifests), _made_by_operators(manifests)
    by_user = _left_to_the_user(secrets, certificates, switches.get("enable_rbac", True))

    for place, entries in _asked(manifests).items():
        makers = [place in by_jobs, place in by_operators, place in by_user]
        assert 1 == sum(makers), place
        made = by_jobs.get(place) or by_operators.get(place) or entries
        assert entries <= made, place
    assert set() == by_user & (set(by_jobs) | set(by_operators))


@pytest.mark.parametrize("row", _ROWS, ids=_IDS)
def test_custom_resources_are_valid_and_no_secret_is_in_a_manifest(rows: list[list[Manifest]], row: int):
    (secrets, certificates, switches), manifests = _MATRIX[row], rows[row]

    for manifest in manifests:
        validate(manifest, "1.37")
    assert [] == [manifest for manifest in manifests if manifest["kind"] == "Secret"]
    kinds = {manifest["kind"] for manifest in manifests}
    assert ("ExternalSecret" in kinds) == secrets.startswith("external")
    assert ("Certificate" in kinds) == (certificates.startswith("cert_manager") and switches.get("enable_tls", True))
    assert (
        "jarvis-tls" in {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "CronJob"}
    ) == (certificates == "self_signed" and switches.get("enable_tls", True) and switches.get("enable_rbac", True))


def _named_by_the_user(values: Any) -> Iterator[str]:
    """Yield Secrets and ConfigMaps that values name because somebody has made them."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if key in {"existing_secret", "ca_config_map"} and value:
            yield value
        yield from _named_by_the_user(value)


@pytest.mark.parametrize("name", CASES)
def test_whatever_pods_ask_for_is_made_or_named_with_any_switch(rendered: Callable[[str], list[Manifest]], name: str):
    values, manifests = CASES[name].complete(), rendered(name)
    security = values["security"]
    made = {**_made_by_jobs(manifests), **_made_by_operators(manifests)}
    left = {("Secret", secret) for secret in own_secrets(values)}
    left |= {(kind, named) for kind in ("Secret", "ConfigMap") for named in _named_by_the_user(values)}
    if security["certificates"]["source"] != "self_signed":
        assert "'jarvis-ca'" not in str([pod.get("volumes") for pod in find_pods(manifests)])
        assert ("ConfigMap", "jarvis-ca") not in made
    elif not security["enable_rbac"]:
        left.add(("ConfigMap", "jarvis-ca"))

    assert set() == set(_asked(manifests)) - set(made) - left
    assert [] == [manifest for manifest in manifests if manifest["kind"] == "Secret"]


def test_what_the_hook_need_not_do_it_may_not_do(render: Render):
    def rules(secrets: str, certificates: str) -> list[tuple[str, list[str], set[str]]]:
        return [
            (rule["resources"][0], rule["verbs"], set(rule.get("resourceNames", [])))
            for manifest in render({**_values(secrets, certificates), "backup": {"enabled": False}})
            if manifest["kind"] == "Role" and manifest["metadata"]["name"] in _JOBS
            for rule in manifest["rules"]
        ]

    tls = {"jarvis-authority", *(f"jarvis-{name}-tls" for name in _OWN_TLS)}
    renewing = [("secrets", ["get", "update"], tls), ("configmaps", ["get", "update"], {"jarvis-ca"})]
    making = [("secrets", ["create"], set()), ("configmaps", ["create"], set())]
    keys = [("secrets", ["get", "update"], {"own-3"}), ("secrets", ["get"], {"own-4"})]

    assert [] == rules("existing", "cert_manager") == rules("external", "existing")
    assert sorted([making[0], *keys], key=str) == sorted(rules("generated, own names", "existing"), key=str)
    assert sorted([*renewing, *renewing, *making], key=str) == sorted(rules("existing", "self_signed"), key=str)


def test_to_claim_the_volume_of_backups_is_a_right_of_its_own(render: Render):
    [rules] = [
        manifest["rules"]
        for manifest in render(_values("existing", "existing"))
        if (manifest["kind"], manifest["metadata"]["name"]) == ("Role", "jarvis-secret-hook")
    ]

    assert [{"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create"]}] == rules


def test_without_a_job_that_makes_secrets_there_is_no_trace_of_one(render: Render):
    for certificates in ("cert_manager", "existing"):
        values = {**_values("existing", certificates), "backup": {"enabled": False}}
        names = [manifest["metadata"]["name"] for manifest in render(values)]
        assert [] == [name for name in names if name in _JOBS]


def test_external_secrets_say_where_each_value_is(render: Render):
    remote = {"encryption": {"key": "jarvis/keys", "property": "now"}, "encryption_previous": {"key": "before"}}
    external = {"store_name": "vault", "store_kind": "ClusterSecretStore", "refresh_interval": "7m", "remote": remote}
    manifests = render({"security": {"secrets": {"source": "external", "external": external}}})
    found = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "ExternalSecret"}

    assert {f"jarvis-{name.replace('_', '-')}" for name in _OWN} == set(found)
    for name, spec in found.items():
        assert {"kind": "ClusterSecretStore", "name": "vault"} == spec["secretStoreRef"]
        assert "7m" == spec["refreshInterval"]
        # What is gone from the store, or from the release, stays in the cluster.
        assert {"name": name, "creationPolicy": "Orphan", "deletionPolicy": "Retain"} == spec["target"]
    assert [
        {"secretKey": "encryption-key", "remoteRef": {"key": "jarvis/keys", "property": "now"}},
        {"secretKey": "encryption-key-previous", "remoteRef": {"key": "before"}},
    ] == found["jarvis-encryption"]["data"]
    assert [{"secretKey": "token", "remoteRef": {"key": "jarvis-admin-token"}}] == found["jarvis-admin-token"]["data"]


def test_the_documentation_names_every_secret_its_entry_and_what_the_store_calls_it(render: Render):
    page = (ROOT / "docs/security.md").read_text()
    specs = [each["spec"] for each in render(_values("external", "existing")) if each["kind"] == "ExternalSecret"]

    for spec in specs:
        [entry] = spec["data"]
        suffix = spec["target"]["name"].removeprefix("jarvis")
        assert f"| `<release>{suffix}` | `{entry['secretKey']}` |" in page
        assert f"kubectl create secret generic jarvis{suffix} --namespace jarvis-system --from-file=" in page
        assert f"`{entry['remoteRef']['key']}`" in page
    for name in _OWN_TLS:
        assert f"| `<release>-{name}-tls` |" in page


def test_certificates_say_what_our_own_maker_would_put_into_them(render: Render):
    [job] = [each for each in render() if (each["kind"], each["metadata"]["name"]) == ("CronJob", "jarvis-tls")]
    options = main_parser().parse_args(find_pods(job)[0]["containers"][0]["args"])
    wanted = dict(
        [read_wanted(text, is_peer=True) for text in options.peer]
        + [read_wanted(text, is_peer=False) for text in options.server]
    )
    manifests = render(_values("generated", "cert_manager"))
    specs = [each["spec"] for each in manifests if each["kind"] == "Certificate"]
    said = {spec["secretName"]: spec for spec in specs if not spec.get("isCA")}

    assert set(wanted) == set(said)
    for name, spec in said.items():
        assert wanted[name].names == (*spec["dnsNames"], *spec.get("ipAddresses", [])), name
        assert spec["commonName"] == spec["dnsNames"][0]
        assert wanted[name].is_peer == ("client auth" in spec["usages"]), name
        assert {"digital signature", "server auth"} <= set(spec["usages"])
        assert ("ECDSA", 256, "Always") == tuple(
            spec["privateKey"][key] for key in ("algorithm", "size", "rotationPolicy")
        )
        assert ("2160h", "720h") == (spec["duration"], spec["renewBefore"])


def test_a_subject_is_short_enough_for_every_release_name(render: Render):
    # RFC 5280: a common name has 64 characters at most.
    manifests = render(_values("generated", "cert_manager"), release="r" * 47)

    for manifest in manifests:
        validate(manifest, "1.37")
    assert [] == [each for each in manifests if each["kind"] == "Certificate" and len(each["spec"]["commonName"]) > 64]


def test_the_authority_of_cert_manager_signs_itself_and_then_the_rest(render: Render):
    manifests = render(_values("generated", "cert_manager"))
    issuers = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Issuer"}
    specs = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Certificate"}
    authority = specs.pop("jarvis-authority")

    assert {
        "jarvis-self-signed": {"selfSigned": {}},
        "jarvis-authority": {"ca": {"secretName": "jarvis-authority"}},
    } == (issuers)
    assert (True, "jarvis-self-signed", "jarvis-authority") == (
        authority["isCA"],
        authority["issuerRef"]["name"],
        authority["secretName"],
    )
    # A renewed authority with a new key would not vouch for what the old one signed.
    assert "Never" == authority["privateKey"]["rotationPolicy"]
    assert {"jarvis-authority"} == {spec["issuerRef"]["name"] for spec in specs.values()}
    own = [each for each in render(_values("generated", "cert_manager, own issuer")) if each["kind"] == "Certificate"]
    assert [{"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "own"}] * 4 == [
        each["spec"]["issuerRef"] for each in own
    ]


@pytest.mark.parametrize("certificates", _CERTIFICATES)
def test_clients_find_whom_to_trust_and_get_no_private_key(render: Render, certificates: str):
    manifests = render(_values("existing, own names", certificates))
    named = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    deployment = named["Deployment", "jarvis-backend"]
    [volume] = named["Pod", "jarvis-test-health"]["spec"]["volumes"]
    api = _CERTIFICATES[certificates].get("names", {}).get("api", "jarvis-api-tls")

    assert "own-4" == deployment["metadata"]["annotations"]["jarvis/admin-token"]
    if certificates == "self_signed":
        assert "configmap/jarvis-ca" == deployment["metadata"]["annotations"]["jarvis/trust"]
        assert {"name": "jarvis-ca"} == volume["configMap"]
    else:
        assert f"secret/{api}" == deployment["metadata"]["annotations"]["jarvis/trust"]
        assert (api, [{"key": "ca.crt", "path": "ca.crt"}]) == (
            volume["secret"]["secretName"],
            volume["secret"]["items"],
        )


def test_another_source_restarts_nothing(render: Render):
    """Names and files stay, so that pods take up new ones by themselves."""

    def templates(secrets: str, certificates: str) -> dict[str, Any]:
        return {
            manifest["metadata"]["name"]: manifest["spec"]["template"]
            for manifest in render(_values(secrets, certificates))
            if manifest["metadata"]["name"] in {"jarvis-backend", "jarvis-crdt"}
            and "template" in manifest.get("spec", {})
        }

    assert templates("generated", "self_signed") == templates("external", "cert_manager")
    assert templates("generated", "self_signed") == templates("existing", "existing")


def test_a_job_before_the_upgrade_does_not_wait_for_cert_manager(render: Render):
    def is_optional(certificates: str) -> bool:
        job = next(each for each in render(_values("existing", certificates)) if each["kind"] == "Job")
        volumes = {volume["name"]: volume for volume in find_pods(job)[0]["volumes"]}
        return volumes["tls"]["secret"].get("optional", False)

    assert "jarvis-resize-hook" in {each["metadata"]["name"] for each in render(_values("existing", "existing"))}
    assert (True, False) == (is_optional("cert_manager"), is_optional("existing"))


def test_names_that_look_like_numbers_stay_text(render: Render):
    names = {
        "cluster": "1e3",
        "encryption": "123",
        "api_keys": "0x1",
        "admin_token": "true",
        "grafana": "1.5",
        "backup_key": "2.5",
    }
    tls = {"node": "1", "backend": "2", "operator": "null", "api": "4"}
    for secrets in ("generated", "existing", "external"):
        store = {"store_name": "5"} if secrets == "external" else {}
        for certificates in ("existing", "cert_manager"):
            chosen = {
                "secrets": {"source": secrets, "names": names, "external": store},
                "certificates": {"source": certificates, "names": tls},
            }
            for manifest in render({"security": chosen}):
                validate(manifest, "1.37")


@pytest.fixture(scope="module")
def notes(helms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notes of an install, which `helm template` leaves out: rendered as a ConfigMap of a copy of the chart."""
    chart = tmp_path_factory.mktemp("notes") / "jarvis"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text()
    (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}' + text + "{{- end -}}")
    (chart / "templates/notes.yaml").write_text('{"kind": "Notes", "text": {{ include "notes" . | toJson }}}')

    def render(values: Manifest) -> str:
        command = [str(helms["helm"]), "template", "jarvis", str(chart), "--namespace", "jarvis-system"]
        done = run([*command, "--show-only", "templates/notes.yaml", "--values", "-"], input=json.dumps(values))
        return str(yaml.safe_load(done.stdout)["text"])

    return render


@pytest.mark.parametrize("row", _ROWS, ids=_IDS)
def test_the_notes_name_every_object_that_is_left_to_the_user(notes: Any, rows: list[list[Manifest]], row: int):
    secrets, certificates, switches = _MATRIX[row]
    risky = notes(_values(secrets, certificates, **switches)).partition("\nRisky")[2]
    left = _left_to_the_user(secrets, certificates, switches.get("enable_rbac", True))
    asked = left & set(_asked(rows[row]))

    assert [] == sorted(name for _, name in asked if name not in risky)
    assert bool(asked) == ("is existing: pods wait" in risky or "enable_rbac is off: pods wait" in risky)
