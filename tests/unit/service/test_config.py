import json

import pytest

from crdt_service.__main__ import main

GOOD = {
    "environment": "production",
    "crdt": {"cluster_enabled": True, "sync_interval_seconds": 5, "replication_factor": 3},
    "peer_service": "jarvis-crdt-headless",
    "peer_port": 8001,
}


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
    ],
)
def test_a_bad_flag_is_named(tmp_path, capsys, flags, message):
    code, stderr = run(tmp_path, capsys, **flags)
    assert code == 2
    assert message in stderr


def test_a_short_secret_is_refused(tmp_path, capsys):
    code, stderr = run(tmp_path, capsys, secret="short")
    assert code == 2
    assert "the secret has 5 bytes" in stderr


def test_the_secret_command_says_that_it_needs_a_pod(capsys):
    assert main(["secret", "--namespace", "n", "--name", "s", "--key", "k"]) == 2
    assert "run this inside a pod" in capsys.readouterr().err
