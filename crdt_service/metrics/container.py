"""What the process and its children use, and may use, as their control group says; no other exporter has to tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from crdt_service.metrics.catalogue import CONTAINER, Kind

_FILE_BYTES_MAX: Final = 64 << 10
# Version 1 writes "no limit" as the largest multiple of a page.
_UNLIMITED_BYTES: Final = 1 << 62


@dataclass(frozen=True)
class Usage:
    """Use and limits of a control group; None for what it does not tell, or does not limit.

    Attributes:
        cpu_seconds: CPU time of all its processes since it was made.
        cpu_limit_cores: CPU time that they may use in each second.
        memory_working_set_bytes: Memory without what the kernel can take back at once.
        memory_limit_bytes: Memory at which the kernel ends a process.
    """

    cpu_seconds: float | None
    cpu_limit_cores: float | None
    memory_working_set_bytes: int | None
    memory_limit_bytes: int | None


def read_usage(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Usage:
    """Return what the control group of this process tells, of version 1 or 2; broken and absent files tell nothing.

    Args:
        mount: Where control groups are mounted.
        membership: Which ones the process is in.
    """
    paths = _read_paths(membership)
    if (mount / "cgroup.controllers").exists():
        return _read_version_2(_enter(mount, paths.get("", "")))
    memory, cpu, cpuacct = (_enter(mount / name, paths.get(name, "")) for name in ("memory", "cpu", "cpuacct"))
    return _read_version_1(memory, cpu, cpuacct)


class ContainerCollector(Collector):
    """The catalogue's metrics of the container, read anew for each scrape; no series of what is not known."""

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield every family."""
        usage = read_usage()
        for metric in CONTAINER:
            field = metric.name.removeprefix("jarvis_").removesuffix("_total")
            value: float | None = getattr(usage, field)
            family = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            yield family(metric.name, metric.sentence, value=value)


def _read_version_2(group: Path) -> Usage:
    ticks = _number(_fields(group / "cpu.stat").get("usage_usec"))
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return Usage(
        None if ticks is None else ticks / 1e6,
        _ratio(_number(quota), _number(period)),
        _working_set(_number(_read(group / "memory.current")), _fields(group / "memory.stat").get("inactive_file")),
        _number(_read(group / "memory.max")),
    )


def _read_version_1(memory: Path, cpu: Path, cpuacct: Path) -> Usage:
    ticks = _number(_read(cpuacct / "cpuacct.usage"))
    limit = _number(_read(memory / "memory.limit_in_bytes"))
    used = _number(_read(memory / "memory.usage_in_bytes"))
    return Usage(
        None if ticks is None else ticks / 1e9,
        _ratio(_number(_read(cpu / "cpu.cfs_quota_us")), _number(_read(cpu / "cpu.cfs_period_us"))),
        _working_set(used, _fields(memory / "memory.stat").get("total_inactive_file")),
        limit if limit is not None and limit < _UNLIMITED_BYTES else None,
    )


def _enter(mount: Path, path: str) -> Path:
    """Return a group's folder: a container mostly has its own mounted at the top, whatever its path outside is."""
    folder = mount / path.strip("/")
    return folder if ".." not in folder.parts and folder.is_dir() else mount


def _read_paths(membership: Path) -> dict[str, str]:
    """Return the path of the group by controller; that of version 2 has an empty name."""
    paths: dict[str, str] = {}
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_FILE_BYTES_MAX).decode("ascii").strip()
    except (OSError, ValueError):
        return ""


def _fields(file: Path) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition(" ") for line in _read(file).splitlines())}


def _number(text: str | None) -> int | None:
    """Return a count; None for `max`, a negative one, and what is none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else None


def _ratio(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period else None


def _working_set(used: int | None, inactive: str | None) -> int | None:
    reclaimable = _number(inactive)
    return None if used is None or reclaimable is None else max(0, used - reclaimable)
