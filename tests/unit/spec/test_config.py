from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.terminal import to_text
from harness.spec.config import ConfigError, Problem, read_config

_QUICK_START = (Path(__file__).parents[2] / "guide/quick-start.yaml").read_text(encoding="utf-8")


def _write(folder: Path, content: str | bytes) -> Path:
    path = folder / "cluster-config.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _problems(folder: Path, content: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        read_config(_write(folder, content))
    return caught.value.problems


def test_the_guides_quick_start_is_valid_and_all_of_it_has_an_effect(tmp_path: Path):
    config = read_config(_write(tmp_path, _QUICK_START))

    assert 3 == config.values["infrastructure"]["node_count"]
    assert 5 == config.values["crdt"]["sync_interval"]
    assert {"infrastructure", "deployment", "monitoring", "security"} == set(config.overrides)
    assert () == config.warnings


def test_the_guides_scaling_examples_are_valid(tmp_path: Path):
    scaling = (
        "enabled: true, min_replicas: 3, max_replicas: 20, target_cpu_utilization: 60, target_memory_utilization: 70"
    )
    text = f"deployment:\n  auto_scaling: {{{scaling}}}\n  resource_limits: {{cpu: '2000m', memory: 4Gi}}\n"

    config = read_config(_write(tmp_path, text + "infrastructure: {storage_size: 500Gi, storage_class: premium}\n"))

    assert 20 == config.values["deployment"]["auto_scaling"]["max_replicas"]


def test_a_planned_key_that_is_off_is_not_warned_about(tmp_path: Path):
    assert () == read_config(_write(tmp_path, "security:\n  api_key_required: false\n")).warnings


@pytest.mark.parametrize(
    ("text", "line", "column", "path", "message", "allowed", "suggestion"),
    [
        ("infrastructure:\n  node_count: -5\n", 2, 15, "infrastructure.node_count", "too small", "1 to 10", ""),
        ("infrastructure:\n  node_count: 11\n", 2, 15, "infrastructure.node_count", "too large", "1 to 10", ""),
        (
            "infrastructure:\n  node_count: '3'\n",
            2,
            15,
            "infrastructure.node_count",
            "not a whole number",
            "1 to 10",
            "",
        ),
        (
            "infrastructure:\n  node_count: 3.5\n",
            2,
            15,
            "infrastructure.node_count",
            "not a whole number",
            "1 to 10",
            "",
        ),
        (
            "infrastructure:\n  node_count: true\n",
            2,
            15,
            "infrastructure.node_count",
            "not a whole number",
            "1 to 10",
            "",
        ),
        (
            "infrastructure:\n  instance_type: banana\n",
            *(2, 18, "infrastructure.instance_type", "not one of the values that are allowed"),
            *("small, medium, large, xlarge", ""),
        ),
        (
            "infrastructure:\n  instance_type: meduim\n",
            *(2, 18, "infrastructure.instance_type", "not one of the values that are allowed"),
            *("small, medium, large, xlarge", "medium"),
        ),
        (
            "crdt:\n  gossip_protocol:\n    enabled: 7\n",
            3,
            14,
            "crdt.gossip_protocol.enabled",
            "not true or false",
            "true or false",
            "",
        ),
        ("crdt: 7\n", 1, 7, "crdt", "not a mapping", "", ""),
        (
            "deployment:\n  auto_scaling:\n    min_replicas: 5\n    max_replicas: 4\n",
            *(3, 19, "deployment.auto_scaling.min_replicas", "above deployment.auto_scaling.max_replicas (4)"),
            *("at most 4, or raise max_replicas", ""),
        ),
        (
            "infrastructure:\n  node_count: 2\n",
            *(2, 15, "crdt.replication_factor", "above infrastructure.node_count (2)"),
            *("at most 2, or raise node_count", ""),
        ),
        (
            "crdt:\n  replication_factor: 4\ninfrastructure:\n  node_count: 3\n",
            *(2, 23, "crdt.replication_factor", "above infrastructure.node_count (3)"),
            *("at most 3, or raise node_count", ""),
        ),
        (
            "deployment:\n  resource_limits:\n    cpu: '0.05'\n",
            *(3, 10, "deployment.resource_requests.cpu", "above deployment.resource_limits.cpu (0.05)"),
            *("at most 0.05, or raise deployment.resource_limits.cpu", ""),
        ),
        (
            "instance_presets:\n  small:\n    requests:\n      memory: 1Gi\n",
            *(4, 15, "instance_presets.small.requests.memory", "above instance_presets.small.limits.memory (512Mi)"),
            *("at most 512Mi, or raise instance_presets.small.limits.memory", ""),
        ),
        (
            "crdt:\n  conflict_resolution: lww\n  conflict_rules:\n    - {strategy: max}\n",
            *(3, 3, "crdt.conflict_rules", "given while crdt.conflict_resolution is lww"),
            *("none, or set conflict_resolution: advanced", ""),
        ),
        (
            "crdt:\n  conflict_rules:\n    - {strategy: max}\n    - strategy: priority\n",
            *(4, 17, "crdt.conflict_rules.1.sources", "empty while the strategy is priority", "1 to 100 nodes", ""),
        ),
        (
            "crdt:\n  conflict_rules:\n    - {strategy: max, sources: [jarvis-crdt-0]}\n",
            *(3, 23, "crdt.conflict_rules.0.sources", "given while the strategy is max"),
            *("none, or set strategy: priority", ""),
        ),
        (
            "crdt:\n  conflict_rules:\n    - {prefix: price/}\n",
            *(3, 7, "crdt.conflict_rules.0", "'strategy' is a required property", "", ""),
        ),
        (
            "crdt:\n  conflict_rules:\n    - {strategy: firstwriter}\n",
            *(3, 18, "crdt.conflict_rules.0.strategy", "not of the form that is needed"),
            *("lww, first_writer, max, min, union, priority, keep, plugin.strategy", "first_writer"),
        ),
        (
            f"crdt:\n  conflict_rules:\n    - {{strategy: max, prefix: {'k' * 513}}}\n",
            *(3, 31, "crdt.conflict_rules.0.prefix", "too long", "at most 512 characters", ""),
        ),
        (
            "infrastructure:\n  storage_size: 100\n",
            2,
            17,
            "infrastructure.storage_size",
            "not text",
            "text like 100Gi",
            "",
        ),
    ],
)
def test_a_bad_value_is_explained_where_it_stands(
    tmp_path: Path, text, line, column, path, message, allowed, suggestion
):
    (problem,) = _problems(tmp_path, text)

    assert (line, column, path) == (problem.line, problem.column, problem.path)
    assert (message, allowed, suggestion) == (problem.message, problem.allowed, problem.suggestion)


def test_an_unknown_key_suggests_the_one_that_was_meant(tmp_path: Path):
    (problem,) = _problems(tmp_path, "infrastructure:\n  node_cuont: 3\n")

    assert (2, 3, "infrastructure.node_cuont") == (problem.line, problem.column, problem.path)
    assert "unknown key" == problem.message
    assert "node_count" == problem.suggestion
    assert "node_count" in problem.allowed.split(", ")


def test_every_problem_is_told_at_once_in_the_order_of_the_file(tmp_path: Path):
    problems = _problems(
        tmp_path, "colour: blue\ninfrastructure:\n  node_count: 99\n  zone: a\ncrdt:\n  sync_interval: 0\n"
    )

    assert [1, 3, 4, 6] == [problem.line for problem in problems]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is nothing in it"),
        (b"# only a comment\n", "there is nothing in it"),
        (b"- a\n- list\n", "not a mapping of keys to values"),
        (b"just text\n", "not a mapping of keys to values"),
        (b"a: [1,\n", "not valid YAML: "),
        (b"a: b: c\n", "not valid YAML: "),
        (b"a: 1\n---\nb: 2\n", "not valid YAML: "),
        (b"\xff\xfe\x00", "not UTF-8 text: byte 0 cannot be decoded"),
        (b"crdt: \x00\n", "not valid YAML: "),
        (
            b"crdt:\n  sync_interval: 5\n  sync_interval: 6\n",
            "crdt.sync_interval is written twice; line 2 has the first",
        ),
        (b"1: 2\n", "a key must be plain text"),
        (b"? [a]\n: 2\n", "a key must be plain text"),
        (b"a: &x 1\nb: *x\n", "aliases are not accepted: write the value out"),
        (b"a: " + b"[" * 60 + b"]" * 60, "nested more than 50 deep"),
        (b"a: !!python/object:os.system x\n", "tags are not accepted"),
        (b'crdt: {sync_interval: !!int ""}\n', "tags are not accepted"),
        (b"crdt: {cluster_enabled: !!bool x}\n", "tags are not accepted"),
        (b"global: {a: !!set {b: null}}\n", "tags are not accepted"),
        (b"global: {rate: .inf}\n", "not a value that JSON knows: put it in quotes"),
        (b"global: {rate: -.INF}\n", "not a value that JSON knows: put it in quotes"),
        (b"global: {rate: .NaN}\n", "not a value that JSON knows: put it in quotes"),
        (b"global: {account: 1234567890123456789}\n", "a whole number beyond 2^53, which would lose digits: put it in"),
        (b"global: {mask: 0xFFFFFFFFFFFFFFFF}\n", "a whole number beyond 2^53"),
        (b"global: {pi: 3.141592653589793238}\n", "a number that would lose digits: put it in quotes"),
        (b"global: {y: 1}\n", "a key must be plain text, and y is none: put it in quotes"),
        (b"global: {1e3: 1}\n", "a key must be plain text"),
        (b"global: {~: 1}\n", "a key must be plain text"),
        (b"global: {<<: {a: 1}}\n", "a key must be plain text"),
        (b'global: {sign: "\\ud83d\\ude00"}\n', "half of a character that is written as two escapes"),
        (b"crdt: {sync_interval: " + b"9" * 5000 + b"}\n", "a number of more than 40 digits"),
        (b"a: " + b"x" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str):
    (problem,) = _problems(tmp_path, content)

    assert problem.message.startswith(message)


@pytest.mark.parametrize("name", ["absent.yaml", ".", "\0"])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / name)


@given(content=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = _write(tmp_path_factory.getbasetemp(), content)
    try:
        read_config(path)
    except ConfigError as error:
        assert error.problems


@given(text=st.text(alphabet="abc:{}[]-?|>&*!#%@,'\" \n\t0123.", max_size=60))
def test_no_yaml_raises_anything_else(text: str, tmp_path_factory: pytest.TempPathFactory):
    path = _write(tmp_path_factory.getbasetemp(), text)
    try:
        read_config(path)
    except ConfigError as error:
        assert error.problems


@pytest.mark.parametrize(
    "text",
    [
        'deployment: {resource_limits: {cpu: "%s"}}',
        'deployment: {resource_limits: {memory: "%sMi"}}',
        'infrastructure: {storage_size: "%sGi"}',
        'monitoring: {metrics_retention: "%sd"}',
        "crdt: {sync_interval: %s}",
        "crdt: {sync_interval: 0x%s}",
        "crdt: {sync_interval: 1.%s}",
        "global: {anything: %s}",
        "global: {anything: -1e%s}",
        'security: {secrets: {external: {refresh_interval: "%sh"}}}',
        'infrastructure: {vpc_cidr: "10.0.0.0/%s"}',
    ],
)
def test_a_number_of_900_000_digits_is_refused_and_not_shown(tmp_path: Path, text: str):
    (problem,) = _problems(tmp_path, (text % ("9" * 900_000)).encode())

    assert len(to_text(problem)) < 1000
