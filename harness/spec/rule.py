"""Rules that span keys; the schema holds those of one key. The chart's `_validate.tpl` has the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.spec.quantity import read_quantity

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Violation:
    """A value that another one does not allow.

    Attributes:
        path: The names from the root to the key that is too large.
        bound: The same of the key that bounds it.
        value: What stands at `path`.
        limit: What stands at `bound`, and so the most that `path` may have.
    """

    path: _Path
    bound: _Path
    value: object
    limit: object


def judge(values: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield every rule that these complete values, each valid by itself, break together."""
    for path, bound in _pairs(values):
        value, limit = _read(values, path), _read(values, bound)
        if read_quantity(value) > read_quantity(limit):
            yield Violation(path, bound, value, limit)


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[_Path, _Path]]:
    """Yield the keys that must not be above another, and that other."""
    scaling = ("deployment", "auto_scaling")
    yield (*scaling, "min_replicas"), (*scaling, "max_replicas")
    yield ("crdt", "replication_factor"), ("infrastructure", "node_count")
    for resource in values["deployment"]["resource_limits"]:
        yield ("deployment", "resource_requests", resource), ("deployment", "resource_limits", resource)
    for size, preset in values["instance_presets"].items():
        for resource in preset["limits"]:
            yield ("instance_presets", size, "requests", resource), ("instance_presets", size, "limits", resource)


def _read(values: Mapping[str, Any], path: _Path) -> Any:
    value: Any = values
    for name in path:
        value = value[name]
    return value
