import base64
import json

import pytest

from crdt_service.__main__ import main
from crdt_service.kernel.config import read_config, read_encryption_key, read_encryption_keys
from crdt_service.kernel.error import ConfigError

GOOD = {
    "environment": "production",
    "crdt": {
        "cluster_enabled": True,
        "sync_interval_seconds": 5,
        "replication_factor": 3,
        "gossip": {"enabled": True, "interval_seconds": 10, "fanout": 3},
        "conflict_resolution": "advanced",
        "conflict_rules": [],
    },
    "security": {
        "api_key_required": False,
        "rate_limiting": {"enabled": True, "requests_per_minute": 1000, "burst_limit": 2000},
    },
    "peer_service": "jarvis-crdt-headless",
    "peer_port": 8001,
}

RULE = {"prefix": "", "type": "any", "strategy": "max", "sources": []}


def with_rules(*rules, mode="advanced"):
    return {"crdt": {**GOOD["crdt"], "conflict_resolution": mode, "conflict_rules": rules}}


def run(directory, capsys, content=None, *, secret="s" * 32, **flags):
    (directory / "config.json").write_text(content if isinstance(content, str) else json.dumps(content or GOOD))
    (directory / "secret").write_text(secret)
    options = {
        "--config": directory / "config.json",
        "--secret-file": directory / "secret",
        "--node-id": "node-0",
        "--data-dir": directory / "data",
        "--listen": "127.0.0.1:0",
        "--metrics-listen": "127.0.0.1:0",
        "--node-count": 1,
        **{f"--{name.replace('_', '-')}": value for name, value in flags.items()},
    }
    code = main(["node", *(str(part) for pair in options.items() for part in pair)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"environment": "banana"}, "$.environment"),
        ({"peer_port": 0}, "$.peer_port"),
        ({"crdt": {**GOOD["crdt"], "sync_interval_seconds": -5}}, "$.crdt.sync_interval_seconds"),
        ({"crdt": {**GOOD["crdt"], "replication_factor": "three"}}, "$.crdt.replication_factor"),
        ({"crdt": {**GOOD["crdt"], "gossip": {**GOOD["crdt"]["gossip"], "fanout": 0}}}, "$.crdt.gossip.fanout"),
        ({"crdt": {**GOOD["crdt"], "conflict_resolution": "vote"}}, "$.crdt.conflict_resolution"),
        (with_rules({**RULE, "prefix": "k" * 10**6}), "$.crdt.conflict_rules[0].prefix"),
        (with_rules({**RULE, "type": "aw_set"}), "$.crdt.conflict_rules[0].type"),
        (with_rules({**RULE, "surprise": 1}), "$.crdt.conflict_rules[0]"),
        (with_rules(*[RULE] * 101), "$.crdt.conflict_rules"),
        (with_rules(RULE, mode="lww"), "crdt.conflict_rules: given while crdt.conflict_resolution is lww"),
        (with_rules({**RULE, "strategy": "vote"}), "crdt.conflict_rules[0].strategy: no strategy is 'vote'"),
        (with_rules(RULE, {**RULE, "strategy": "priority"}), "crdt.conflict_rules[1].sources: 0 while"),
        (with_rules({**RULE, "sources": ["node-0"]}), "crdt.conflict_rules[0].sources: 1 while"),
    ],
)
def test_a_bad_value_is_named_with_its_place(tmp_path, capsys, change, message):
    code, stderr = run(tmp_path, capsys, {**GOOD, **change})
    assert code == 2
    assert message in stderr
    assert "remedy:" in stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_a_file_that_is_no_config_is_refused(tmp_path, capsys, text):
    code, stderr = run(tmp_path, capsys, text or " ")
    assert code == 2
    assert str(tmp_path / "config.json") in stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"config": "/nowhere.json"}, "cannot read the configuration file"),
        ({"secret_file": "/nowhere"}, "cannot read the secret file"),
        ({"node_id": "No_Label"}, "no DNS label"),
        ({"data_dir": "/proc/nowhere"}, "--data-dir /proc/nowhere"),
        ({"listen": "8001"}, "--listen 8001: no HOST:PORT"),
        ({"listen": "192.0.2.1:8001"}, "cannot listen on 192.0.2.1:8001"),
        ({"metrics_listen": "192.0.2.1:8001"}, "cannot listen on 192.0.2.1:8001"),
        ({"peer": "nowhere"}, "--peer nowhere"),
        ({"zone": "a zone"}, "zone 'a zone' is no label"),
        ({"advertise": "nowhere"}, "--advertise nowhere: no HOST:PORT"),
        ({"tls_cert": "/nowhere"}, "TLS needs all of --tls-cert, --tls-key and --tls-ca"),
        ({"tls_cert": "/nowhere", "tls_key": "/nowhere", "tls_ca": "/nowhere"}, "--tls-ca /nowhere: No such file"),
    ],
)
def test_a_bad_flag_is_named(tmp_path, capsys, flags, message):
    code, stderr = run(tmp_path, capsys, **flags)
    assert code == 2
    assert message in stderr


@pytest.mark.parametrize(("is_clustered", "owners"), [(True, 3), (False, 1)])
def test_a_slot_has_one_owner_where_nodes_look_for_no_peers(tmp_path, is_clustered, owners):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**GOOD, "crdt": {**GOOD["crdt"], "cluster_enabled": is_clustered}}))
    assert owners == read_config(file).crdt.replication_factor


def test_a_short_secret_is_refused(tmp_path, capsys):
    code, stderr = run(tmp_path, capsys, secret="short")
    assert code == 2
    assert "the secret has 5 bytes" in stderr


def test_the_secret_command_says_that_it_needs_a_pod(capsys):
    assert main(["secret", "--namespace", "n", "--name", "s", "--key", "k"]) == 2
    assert "run this inside a pod" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"not-base64." * 3 + b"\n", b"not-base64." * 3),
        (bytes(range(200, 232)), bytes(range(200, 232))),
        (bytes(31) + b"\n", bytes(31) + b"\n"),
        (base64.b64encode(bytes(range(32))) + b"\n", bytes(range(32))),
    ],
)
def test_an_encryption_key_is_raw_or_base64(tmp_path, data, key):
    (tmp_path / "key").write_bytes(data)
    assert key == read_encryption_key(tmp_path / "key")


@pytest.mark.parametrize("data", [b"", b"k" * 32, base64.b64encode(bytes(31)), bytes(31)])
def test_a_short_or_missing_encryption_key_is_refused(tmp_path, data):
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(ConfigError, match="the encryption key has"):
        read_encryption_key(tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot read the encryption key file"):
        read_encryption_key(tmp_path / "missing")


def test_a_directory_holds_the_current_encryption_key_and_older_ones(tmp_path):
    for name in ("encryption-key-old", "a", "encryption-key", ".hidden"):
        (tmp_path / name).write_bytes(name.encode().ljust(32, b"!"))
    (tmp_path / "..data").mkdir()  # As kubelet mounts a Secret.
    found = [key.decode().rstrip("!") for key in read_encryption_keys(tmp_path)]
    assert ["encryption-key", "a", "encryption-key-old"] == found
    assert [read_encryption_key(tmp_path / "a")] == read_encryption_keys(tmp_path / "a")


def test_a_directory_without_the_current_encryption_key_is_refused(tmp_path):
    (tmp_path / "old").write_bytes(bytes(32))
    with pytest.raises(ConfigError, match="encryption-key"):
        read_encryption_keys(tmp_path)
