"""Certificates over the years, and the API calls that store them; the peers' and clients' own checks judge them."""

import datetime
import itertools
import ssl

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from crdt_service.certificates.issue import AUTHORITY_LIFETIME, LIFETIME, Pair, Wanted, issue, make_authority
from crdt_service.certificates.renewal import Plan, read_wanted, renew
from crdt_service.certificates.rotation import Authority, step_authority, step_certificate
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.net.certificate import ServerCertificate
from crdt_service.net.credentials import Credentials
from crdt_service.net.kubernetes import CONFIG_MAP, SECRET, ExistsError, Stored

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
NODE = Wanted(("jarvis-crdt-0", "jarvis-crdt-1"), is_peer=True)
API = Wanted(("jarvis-backend", "localhost", "127.0.0.1"), is_peer=False)
PLAN = Plan("authority", "bundle", {"node": NODE, "api": API})


class Cluster:
    """Objects of a namespace, with versions as the API has them."""

    def __init__(self):
        self.objects = {}
        self.changes = []
        self._versions = itertools.count(1)

    def read(self, kind, name):
        return self.objects.get((kind, name))

    def create(self, kind, name, data):
        if (kind, name) in self.objects:
            raise ExistsError(name)
        self._put(kind, name, data)

    def replace(self, kind, name, data, version):
        if self.objects[kind, name].version != version:
            raise ServiceError("kubernetes_conflict", name, "")
        self._put(kind, name, data)

    def _put(self, kind, name, data):
        self.changes.append(name)
        self.objects[kind, name] = Stored(dict(data), str(next(self._versions)))

    def data(self, name):
        return self.objects[SECRET, name].data


def run(cluster, now=NOW, plan=PLAN):
    """Return which objects were written."""
    before = len(cluster.changes)
    renew(cluster, plan, now, lambda _: None)
    return cluster.changes[before:]


def write(directory, data):
    directory.mkdir(exist_ok=True)
    for name, content in data.items():
        (directory / name).write_bytes(content)
    return directory


def meet(listener, listeners_trust, dialler, diallers_trust, directory, now=NOW):
    """Shake hands as two processes with these files would at `now`; raises what either says."""
    contexts = []
    for side, (data, trust, protocol) in enumerate(
        ((listener, listeners_trust, ssl.PROTOCOL_TLS_SERVER), (dialler, diallers_trust, ssl.PROTOCOL_TLS_CLIENT))
    ):
        folder = write(directory / f"{side}", {**data, "ca.crt": trust})
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.crt")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        contexts.append(context)
    forth, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [contexts[1].wrap_bio(back, forth), contexts[0].wrap_bio(forth, back, server_side=True)]
    done = set()
    while len(done) < 2:
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass


def test_the_first_run_makes_what_processes_can_use_and_the_second_changes_nothing(tmp_path):
    cluster = Cluster()
    assert ["authority", "bundle", "node", "api"] == run(cluster)
    node, api = write(tmp_path / "node", cluster.data("node")), write(tmp_path / "api", cluster.data("api"))
    for name in NODE.names:
        Credentials(node / "tls.crt", node / "tls.key", node / "ca.crt", name)
    ServerCertificate(api / "tls.crt", api / "tls.key")
    assert cluster.data("node")["ca.crt"] == cluster.objects[CONFIG_MAP, "bundle"].data["ca.crt"]
    assert [] == run(cluster)
    assert [] == run(cluster, NOW + 50 * DAY)


def test_objects_that_were_left_empty_are_filled_without_a_right_to_create():
    cluster, whole = Cluster(), Cluster()
    run(whole)
    for kind, name in whole.objects:
        cluster.create(kind, name, {})
    cluster.create = None
    assert ["authority", "bundle", "node", "api"] == run(cluster)
    assert {key: set(each.data) for key, each in whole.objects.items()} == {
        key: set(each.data) for key, each in cluster.objects.items()
    }
    assert [] == run(cluster)


def test_the_private_key_of_the_authority_is_in_its_own_secret_alone():
    cluster = Cluster()
    run(cluster)
    key = cluster.data("authority")["tls.key"]
    others = [
        value for (_, name), stored in cluster.objects.items() if name != "authority" for value in stored.data.values()
    ]
    assert key not in others


def test_the_certificate_of_the_api_is_no_peers(tmp_path):
    cluster = Cluster()
    run(cluster)
    bundle = cluster.data("node")["ca.crt"]
    meet(cluster.data("node"), bundle, cluster.data("node"), bundle, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        meet(cluster.data("node"), bundle, cluster.data("api"), bundle, tmp_path)


def test_certificates_are_renewed_when_a_third_of_their_lifetime_is_left_and_the_authority_stays():
    cluster = Cluster()
    run(cluster)
    authority = cluster.data("authority")
    assert [] == run(cluster, NOW + LIFETIME * 2 / 3 - DAY)
    assert ["node", "api"] == run(cluster, NOW + LIFETIME * 2 / 3 + DAY)
    assert authority == cluster.data("authority")


def test_the_authority_changes_in_two_steps_and_nobody_meets_a_stranger():
    """Processes read new files some time after a run: at each run all pairs of old and new files must meet."""
    cluster, seen = Cluster(), []
    run(cluster)
    authorities = {cluster.data("authority")["tls.crt"]}
    last = cluster.data("node")
    for number in range(1, 2 * AUTHORITY_LIFETIME.days):
        now = NOW + number * DAY
        if not run(cluster, now):
            continue
        data = cluster.data("node")
        for listener, dialler in itertools.product((last, data), repeat=2):
            trusted = x509.load_pem_x509_certificates(dialler["ca.crt"])
            leaf = x509.load_pem_x509_certificate(listener["tls.crt"])
            signers = [each for each in trusted if is_issuer(each, leaf)]
            assert 1 == len(signers)
            assert signers[0].not_valid_before_utc <= now < signers[0].not_valid_after_utc
            assert now < leaf.not_valid_after_utc
        last = data
        authorities.add(cluster.data("authority")["tls.crt"])
        seen.append(len(x509.load_pem_x509_certificates(data["ca.crt"])))
    assert 3 == len(authorities)
    assert {1, 2} == set(seen)


def is_issuer(authority, certificate):
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, InvalidSignature):
        return False
    return True


def test_a_new_authority_signs_only_once_all_have_had_time_to_trust_it():
    first = step_authority(None, NOW)
    late = NOW + AUTHORITY_LIFETIME * 2 / 3 + DAY
    both = step_authority(first, late)
    assert first.current == both.current
    assert both.following is not None
    assert both == step_authority(both, late + datetime.timedelta(minutes=40))
    changed = step_authority(both, late + DAY)
    assert (both.following, None) == (changed.current, changed.following)
    assert 2 == len(x509.load_pem_x509_certificates(changed.bundle))


def test_after_all_has_expired_everything_is_made_anew():
    cluster = Cluster()
    run(cluster)
    before = cluster.data("authority")["tls.crt"]
    assert ["authority", "bundle", "node", "api"] == run(cluster, NOW + 2 * AUTHORITY_LIFETIME)
    assert cluster.data("authority")["tls.crt"] != before
    assert 1 == len(x509.load_pem_x509_certificates(cluster.data("node")["ca.crt"]))


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("value", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("name", ["authority", "node"])
def test_what_is_damaged_is_made_anew(tmp_path, name, key, value):
    cluster = Cluster()
    run(cluster)
    damaged = {**cluster.data(name), key: value}
    if value is None:
        del damaged[key]
    cluster.replace(SECRET, name, damaged, cluster.objects[SECRET, name].version)
    assert name in run(cluster)
    node = write(tmp_path / "node", cluster.data("node"))
    Credentials(node / "tls.crt", node / "tls.key", node / "ca.crt", "jarvis-crdt-0")
    assert [] == run(cluster)


def test_other_names_make_another_certificate_and_nothing_else():
    cluster = Cluster()
    run(cluster)
    wider = Wanted((*API.names, "jarvis.example.org"), is_peer=False)
    assert ["api"] == run(cluster, plan=Plan("authority", "bundle", {"node": NODE, "api": wider}))


def test_a_run_that_was_cut_off_is_gone_on_with():
    class Cut(Cluster):
        def create(self, kind, name, data):
            if name == "api":
                raise ServiceError("kubernetes_unreachable", "gone", "")
            super().create(kind, name, data)

    cut = Cut()
    with pytest.raises(ServiceError):
        run(cut)
    cluster = Cluster()
    cluster.objects = cut.objects
    assert ["api"] == run(cluster)


def test_two_runs_at_once_do_not_mix():
    cluster = Cluster()
    run(cluster)
    late = NOW + LIFETIME

    class Late(Cluster):
        def read(self, kind, name):
            found = cluster.read(kind, name)
            if name == "node":
                run(cluster, late)  # Between this reading and what follows.
            return found

        def replace(self, *arguments):
            cluster.replace(*arguments)

    with pytest.raises(ServiceError) as refused:
        run(Late(), late)
    assert "kubernetes_conflict" == refused.value.code
    assert [] == run(cluster, late)


def test_a_stranger_with_the_same_name_is_not_ours():
    ours, stranger = make_authority(NOW), make_authority(NOW)
    theirs = issue(stranger, NODE, NOW)
    assert theirs != step_certificate(theirs, Authority(ours, None, ours.certificate), NODE, NOW)
    mine = issue(ours, NODE, NOW)
    assert mine == step_certificate(mine, Authority(ours, None, ours.certificate), NODE, NOW)
    mixed = Pair(mine.certificate, theirs.key)
    assert mixed != step_certificate(mixed, Authority(ours, None, ours.certificate), NODE, NOW)


@pytest.mark.parametrize(
    "text", ["", "secret", "secret=", "=a", "secret=a,,b", "secret=a b", "Secret=a", "s=" + "a" * 64]
)
def test_what_names_no_certificate_is_refused(text):
    with pytest.raises(ConfigError, match="no SECRET=NAME,NAME"):
        read_wanted(text, is_peer=True)


def test_names_and_addresses_are_read():
    assert ("s", Wanted(("a.b-c.d", "127.0.0.1", "::1"), is_peer=False)) == read_wanted(
        "s=a.b-c.d,127.0.0.1,::1", is_peer=False
    )
