"""Use and limits of a container, from either version of control groups, with broken and absent files too."""

import pytest

from crdt_service.metrics.container import ContainerCollector, Usage, read_usage

NOTHING = Usage(None, None, None, None)
V2 = {
    "cgroup.controllers": "cpu memory",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000",
    "cpu.max": "150000 100000",
    "memory.current": "5000",
    "memory.stat": "anon 100\ninactive_file 2000\nactive_file 300",
    "memory.max": "10000",
}
V1 = {
    "cpuacct/cpuacct.usage": "1500000000",
    "cpu/cpu.cfs_quota_us": "150000",
    "cpu/cpu.cfs_period_us": "100000",
    "memory/memory.usage_in_bytes": "5000",
    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 2000",
    "memory/memory.limit_in_bytes": "10000",
}
LIMITED = Usage(1.5, 1.5, 3000, 10000)


def make(tmp_path, files, membership="", below=""):
    for name, text in files.items():
        file = tmp_path / "mount" / name
        if name != "cgroup.controllers":
            file = file.parent / below / file.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
    (tmp_path / "membership").write_text(membership)
    return read_usage(tmp_path / "mount", tmp_path / "membership")


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(
    "membership",
    [
        "",
        "0::/",
        "0::/kubepods/pod1/outside",  # Without a namespace of groups, the path is that outside of the container.
        "5:memory:/kubepods/x\n4:cpu,cpuacct:/kubepods/x\n0::/../../x",
        "nonsense",
    ],
)
def test_a_container_has_its_own_group_at_the_top(tmp_path, files, membership):
    assert make(tmp_path, files, membership) == LIMITED


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_outside_of_a_container_the_group_is_found_by_its_path(tmp_path, files):
    membership = "5:memory:/a/b\n4:cpu,cpuacct:/a/b\n0::/a/b"

    assert make(tmp_path, files, membership, below="a/b") == LIMITED


def test_without_limits_there_are_none(tmp_path):
    v1 = {**V1, "cpu/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": "9223372036854771712"}
    v2 = {**V2, "cpu.max": "max 100000", "memory.max": "max"}

    unlimited = Usage(1.5, None, 3000, None)
    assert [unlimited, unlimited] == [make(tmp_path / name, files) for name, files in (("v1", v1), ("v2", v2))]


@pytest.mark.parametrize(
    "text",
    ["", "x", "-5", "1e9", "0x10", "9" * 5000, b"\xff\xfe", b"\0" * (1 << 20), "\u0661"],
    ids=lambda text: repr(text)[:9],
)
@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_broken_files_tell_nothing(tmp_path, files, text):
    assert make(tmp_path, dict.fromkeys(files, text)) == NOTHING


def test_a_period_of_zero_is_no_limit(tmp_path):
    assert make(tmp_path, {**V2, "cpu.max": "1000 0"}).cpu_limit_cores is None


def test_less_memory_than_is_inactive_is_none(tmp_path):
    assert make(tmp_path, {**V2, "memory.current": "10"}).memory_working_set_bytes == 0


def test_absent_files_tell_nothing(tmp_path):
    assert make(tmp_path, {"cgroup.controllers": ""}) == NOTHING
    assert read_usage(tmp_path / "none", tmp_path / "neither") == NOTHING


def test_what_is_not_known_has_no_series(monkeypatch):
    monkeypatch.setattr("crdt_service.metrics.container.read_usage", lambda: Usage(2.5, None, 7, None))

    series = {sample.name: sample.value for family in ContainerCollector().collect() for sample in family.samples}

    assert {"jarvis_cpu_seconds_total": 2.5, "jarvis_memory_working_set_bytes": 7} == series
