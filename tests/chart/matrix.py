"""Values in which any two settings of any two switches meet, as far as the rules across keys let them.

A switch is a key that is true or false or one of a few names; `_MORE` adds other keys that decide what is rendered.
Which settings go together is what `harness.spec.rule` says. A new switch that is refused by default values needs those
beside it in `_MORE`, and a test says so.
"""

import random
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from harness.spec.rule import Violation, judge
from harness.spec.schema import defaults, walk

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts/jarvis"
VALUES_FILES: Final = tuple(sorted((ROOT / "values").glob("*.yaml")))
Values = dict[str, Any]
Row = Mapping[str, Any]
_MORE: Final[Mapping[str, tuple[Any, ...]]] = {
    "infrastructure.node_count": (3, 10),
    "infrastructure.availability_zones": (["a"], ["a", "b", "c"]),
    "deployment.auto_scaling.target_memory_utilization": (None, 80),
    "deployment.service.annotations": ({}, {"example.com/colour": "blue"}),
    "crdt.conflict_rules": ([], [{"strategy": "max"}]),
    "tracing.endpoint": ("", "http://collector.tracing:4318"),
    "plugins": ([], [{"name": "a", "source": "x = 1"}, {"name": "b", "image": "example.com/b:1"}]),
    "ingress.hosts": ([], ["jarvis.example", "state.example"]),
    "ingress.tls.existing_secret": ("", "mine"),
    "ingress.tls.cluster_issuer": ("", "letsencrypt"),
    "gateway.parent_refs": ([], [{"name": "web", "namespace": "edge"}]),
    "gateway.controller_namespace": ("", "edge"),
    "notifications.slack.existing_secret": ("", "slack"),
    "notifications.email.to": ([], ["operators@example.com"]),
    "notifications.email.from": ("", "jarvis@example.com"),
    "notifications.email.smarthost": ("", "smtp.example.com:587"),
    "notifications.email.username": ("", "jarvis"),
    "notifications.email.existing_secret": ("", "email"),
    "notifications.pagerduty.existing_secret": ("", "pagerduty"),
    "security.secrets.external.store_name": ("", "vault"),
    "security.certificates.cert_manager.issuer_name": ("", "mine"),
    "backup.s3.endpoint": ("", "https://s3.example:9000"),
    "backup.s3.bucket": ("", "backups"),
    "backup.s3.existing_secret": ("", "bucket"),
    "image.digest": ("", f"sha256:{'0' * 64}"),
    "scheduling.node_selector": ({}, {"pool": "jarvis"}),
    "global.image_registry": ("", "mirror.example"),
}
_TRIES: Final = 20
_REPAIRS_MAX: Final = 20


@cache
def switches() -> Mapping[str, tuple[Any, ...]]:
    """Return the settings of each switch, by its dotted key; the first one is the default where it has one of them."""
    found: dict[str, tuple[Any, ...]] = {}
    for key in walk():
        if key.planned or not key.is_leaf:
            continue
        settings = key.node.get("enum") or ([True, False] if key.node.get("type") == "boolean" else [])
        if len(settings) > 1:
            found[key.dotted] = tuple(sorted(settings, key=lambda setting: setting != key.node["default"]))
    return {**found, **_MORE}


@cache
def matrix() -> tuple[Row, ...]:
    """Return rows, each with a setting of every switch; every pair that any legal row was found for is in one."""
    draw = random.Random(0)
    rows: list[Row] = []
    left = set(_pairs_of_all())
    while left:
        # Sorted, as the order of a set of texts differs from run to run.
        wanted = min(left)
        drawn = (_repaired(_draw(draw, wanted)) for _ in range(_TRIES))
        found = [row for row in drawn if is_legal(row) and wanted in set(_pairs(row))]
        if not found:
            left.discard(wanted)
            continue
        best = max(found, key=lambda row: len(left & set(_pairs(row))))
        rows.append(best)
        left -= set(_pairs(best))
    return tuple(rows)


def everything_on() -> Iterator[Row]:
    """Yield rows with every switch on but those that a rule refuses, and in turn each setting of those with names."""
    for turn in range(max(len(settings) for settings in switches().values())):
        row = {key: _on(settings, turn) for key, settings in switches().items()}
        yield _repaired({**row, **{key: settings[-1] for key, settings in _MORE.items()}})


def unfold(row: Row) -> Values:
    """Return a row as values."""
    values: Values = {}
    for dotted, setting in row.items():
        *above, last = dotted.split(".")
        place = values
        for name in above:
            place = place.setdefault(name, {})
        place[last] = setting
    return values


def is_legal(row: Row) -> bool:
    """Return whether no rule across keys refuses the row."""
    return _violation(row) is None


def _violation(row: Row) -> Violation | None:
    return next(judge(merge(defaults(), unfold(row))), None)


def _repaired(row: Row) -> Row:
    """Return a row with what rules refuse turned off, or else what they refuse it for; it may stay illegal."""
    for _ in range(_REPAIRS_MAX):
        violation = _violation(row)
        if violation is None:
            break
        for path in (violation.path, violation.bound):
            key = next((key for key in switches() if path[: len(key.split("."))] == tuple(key.split("."))), "")
            off = _off(switches()[key]) if key else None
            if key and row[key] != off:
                row = {**row, key: off}
                break
    return row


def _off(settings: tuple[Any, ...]) -> Any:
    return False if False in settings else settings[0]


def merge(base: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Return values with others above them; only objects are merged."""
    merged = dict(base)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _on(settings: tuple[Any, ...], turn: int) -> Any:
    return True if True in settings else settings[turn % len(settings)]


# Settings by their number, since lists cannot stand in sets.
Pair = tuple[tuple[str, int], tuple[str, int]]


def _pairs_of_all() -> Iterator[Pair]:
    for one, other in combinations(sorted(switches()), 2):
        for first in range(len(switches()[one])):
            for second in range(len(switches()[other])):
                yield (one, first), (other, second)


def _pairs(row: Row) -> Iterator[Pair]:
    numbered = [(key, switches()[key].index(row[key])) for key in sorted(row)]
    yield from combinations(numbered, 2)


def _draw(draw: random.Random, wanted: Pair) -> Row:
    """Return a row with the wanted pair, and others at random."""
    row = {key: draw.choice(settings) for key, settings in switches().items()}
    for key, number in wanted:
        row[key] = switches()[key][number]
    return row


class Case(NamedTuple):
    """One set of values that the chart is judged with."""

    values: Values
    files: tuple[Path, ...]

    def complete(self) -> Values:
        """Return every key: files stand above values, and both above the defaults."""
        complete = merge(defaults(), self.values)
        for file in self.files:
            complete = merge(complete, yaml.safe_load(file.read_text(encoding="utf-8")))
        return complete


# Those that people install, and those in which all is on: every judge holds for them.
INSTALLED: Final[Mapping[str, Case]] = {
    **{file.stem: Case({}, (file,)) for file in VALUES_FILES},
    "airgapped": Case({}, (ROOT / "values/kind.yaml", ROOT / "values/airgap.yaml")),
    **{f"all-{number}": Case(unfold(row), ()) for number, row in enumerate(everything_on())},
}
CASES: Final[Mapping[str, Case]] = {
    **INSTALLED,
    **{f"row-{number}": Case(unfold(row), ()) for number, row in enumerate(matrix())},
}
