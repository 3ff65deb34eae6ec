"""One file for both ways in: what `deploy` hands to Helm is what `helm install -f` reads in the file itself."""

import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.process import run
from harness.release.helm import Helm
from harness.spec.config import ConfigError, read_config
from harness.spec.scalar import ScalarError, read_scalar
from tests.chart.conftest import CHART

_REFUSED = object()
_WRITTEN = (
    "12:30:00 1:30 190:20:30.15 -1:30 0:30 y Y n N yes Yes YES no No NO on On ON off Off OFF true True TRUE "
    "false False FALSE yEs ~ null Null NULL nUll 1e3 1E3 1e+3 1e-3 1.e3 1.5e3 .5 -.5 +.5 5. -5. 0o17 0O17 017 "
    "08 09 -017 +017 0b11 -0b11 +0b11 0B11 0x1F 0X1f -0x1F +0x1F 0x_1F 0x 0b 0o 1_000 1__000 _1 1_ -1_000 "
    "1_000.5 1_0e3 0x1_F 0b1_1 0o1_7 +1 -1 +0 -0 -0.0 0 00 000 007 0_7 0_8 1.10 1.00 12e03 1e400 1e-400 "
    "1.0e400 .inf -.inf +.INF .iNf .nan .NaN inf Infinity nan +inf 9007199254740991 9007199254740992 "
    "9007199254740993 -9007199254740993 1234567890123456789 9223372036854775808 18446744073709551615 "
    "18446744073709551616 -9223372036854775809 1e22 1e21 100000000000000000000 1.7976931348623157e308 5e-324 "
    "4.9e-324 0.30000000000000004 3.141592653589793238462643 2001-01-01 2001-1-1 2001-01-01T00:00:00Z "
    "2001-12-14t21:59:43.10-05:00 2001-13-45 20010101 = => . .. -- + +. -. e3 .e3 1e 1e+ 0xg 0b2 0o8 08.5 00.5 "
    "1.2.3 10.0.0.0/8 1Gi 500m 07:00 1,000 0x1p3 1p3 0xFFFFFFFFFFFFFFFF 0x1FFFFFFFFFFFFFFFF "
    "0777777777777777777777777 -0o17 0o_7 -0x_1 +12e03 .5E-3 1._5 1_.5 ._5 1e_3 1e3_0 +18446744073709551615 "
    "-18446744073709551615 +9223372036854775808 99999999999999999999999999999999999999999 "
)


def _draw(count: int) -> list[str]:
    """Texts that are nearly numbers, the same ones each time."""
    source = random.Random(11)
    first, rest = "+-.0123456789ynotf~", "+-._00123456789eExXoObBaFyn~:TZ"
    texts = {source.choice(first) + "".join(source.choices(rest, k=source.randrange(6))) for _ in range(count)}
    return sorted(text for text in texts if text not in {"-", "..."} and not text.endswith(":"))


def _read(helm: Path, texts: list[str]) -> list[Any]:
    """What helm reads in a file of these scalars."""
    lines = "".join(f"      k{number}: {text}\n" for number, text in enumerate(texts))
    values = f"plugins:\n  - name: shapes\n    source: x\n    settings:\n{lines}"
    settings = _settings(helm, values)
    if settings is not None:
        return [settings.get(f"k{number}") for number in range(len(texts))]
    half = len(texts) // 2
    return [_REFUSED] if half == 0 else [*_read(helm, texts[:half]), *_read(helm, texts[half:])]


def _settings(helm: Path, values: str) -> Any:
    command = [str(helm), "template", "jarvis", str(CHART), "-f", "-", "-s", "templates/plugin/configmap.yaml"]
    done = run(command, input=values, check=False)
    if done.returncode:
        return None
    return json.loads(yaml.safe_load(done.stdout)["data"]["plugins.json"])["plugins"][0]["settings"]


def _is_kept(text: str, read: Any) -> bool:
    """Whether a number is all that was written."""
    plain = text.replace("_", "")
    if plain.lstrip("+-")[:2].lower() in {"0x", "0b", "0o"} or (plain.lstrip("+-")[:1] == "0" and "." not in plain):
        return abs(read) <= 1 << 53
    return abs(read) <= 1 << 53 and Decimal(repr(read)) == Decimal(plain)


@pytest.mark.parametrize("name", ["helm", "helm4"])
def test_plain_scalars_are_read_as_helm_reads_them_or_refused_for_lost_digits(helms: dict[str, Path], name: str):
    texts = [*_WRITTEN.split(), *_draw(2000)]
    different, needless = {}, {}
    for text, read in zip(texts, _read(helms[name], texts), strict=True):
        try:
            ours = read_scalar(text)
        except ScalarError:
            if read is not _REFUSED and _is_kept(text, read):
                needless[text] = read
            continue
        if read is _REFUSED or (type(ours) is bool) != (type(read) is bool) or ours != read:
            different[text] = (ours, read)
    assert {} == different
    assert {} == needless


_VALUE = "plugins:\n  - name: shapes\n    source: x\n    settings:\n      v: "


@pytest.mark.parametrize(
    "value",
    [
        "12:30:00",
        "y",
        "0o17",
        "1e21",
        "2001-01-01",
        "größe 😀",
        '"\\u2028 \\xe9 \\t \\\\ud83d"',
        '"\\U0001F600"',
        "'it''s'",
        "|-\n        a\n         b\n\n        c",
        ">\n        a\n        b\n\n        c",
        "a b\n        c",
        "{a: [1, y, ~], 'y': 2}",
        "&anchor 1",
    ],
)
def test_a_values_file_means_the_same_both_ways(helms: dict[str, Path], tmp_path: Path, value: str):
    text = f"{_VALUE}{value}\n"
    (tmp_path / "values.yaml").write_text(text, encoding="utf-8")
    overrides = read_config(tmp_path / "values.yaml").overrides
    for program in helms.values():
        direct = _settings(program, text)
        rendered = Helm(program, "none", "jarvis-system").render(overrides)
        [plugins] = [each for each in rendered if each["metadata"]["name"] == "jarvis-plugins"]
        assert direct is not None
        assert direct == json.loads(plugins["data"]["plugins.json"])["plugins"][0]["settings"]


@pytest.mark.parametrize(
    "text",
    [
        "crdt: {sync_interval: 1:30}",
        "crdt: {sync_interval: 1e2}",
        "crdt: {sync_interval: 0o17}",
        "crdt: {sync_interval: 017}",
        "crdt: {sync_interval: 1_0}",
        "crdt: {sync_interval: 10.0}",
        "crdt: {sync_interval: +10}",
        "security: {enable_tls: y}",
        "security: {enable_tls: Y}",
        "security: {enable_tls: off}",
        "security: {enable_tls: nO}",
        "infrastructure: {cluster_name: n}",
        "infrastructure: {cluster_name: 2001-01-01}",
        "infrastructure: {availability_zones: [08]}",
        "image: {tag: 1e3}",
        "image: {tag: 0x1F}",
        "image: {tag: 12:30}",
        "image: {tag: =}",
    ],
)
def test_a_key_of_the_schema_takes_the_same_both_ways(template: Callable[..., Any], tmp_path: Path, text: str):
    file = tmp_path / "values.yaml"
    file.write_text(text)
    try:
        read_config(file)
        taken = True
    except ConfigError:
        taken = False
    assert taken == (template(files=(file,)).returncode == 0)
