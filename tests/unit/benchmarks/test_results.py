import io

import pytest
from rich.console import Console

from benchmarks.page import markdown, write_section
from benchmarks.results import MEASURES, Result, build_page, build_table, compare, medians, quantile, ratio, to_plain

WRITES = next(measure for measure in MEASURES if measure.key == "writes_per_s")
P99 = next(measure for measure in MEASURES if measure.key == "write_p99_ms")
OURS = Result("jarvis-majority", "a quorum", {"writes_per_s": 3000.0, "write_p99_ms": 4.0, "increments_per_s": 9.0})
THEIRS = Result("nats", "a quorum", {"writes_per_s": 1000.0, "write_p99_ms": 2.0})
GONE = Result("etcd", missing="not built")


@pytest.mark.parametrize(("part", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_quantile_is_a_value_that_was_measured(part, expected):
    assert expected == quantile(list(range(100, 0, -1)), part)


def test_one_outlier_moves_no_median_and_a_measure_may_lack_in_a_round():
    assert {"a": 2.0, "b": 7.0} == medians([{"a": 1.0}, {"a": 900.0, "b": 7.0}, {"a": 2.0}])


def test_a_ratio_above_one_means_better_in_either_direction():
    assert (3.0, 0.5) == (ratio(WRITES, OURS, THEIRS), ratio(P99, OURS, THEIRS))


def test_what_a_rival_lacks_has_no_ratio():
    increments = next(measure for measure in MEASURES if measure.key == "increments_per_s")
    assert ratio(increments, OURS, THEIRS) is None


def test_a_piped_table_is_plain_and_shows_only_what_was_measured():
    out = io.StringIO()
    Console(file=out, width=250).print(build_table([OURS, THEIRS, GONE]))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "3 000" in text
    assert "3.00" in text
    assert "jarvis-majority ÷ nats" in text
    assert "etcd" not in text


def test_the_file_names_the_reason_of_what_is_missing():
    plain = to_plain([OURS, THEIRS, GONE], {"clients": 2})
    assert {"missing": "not built"} == plain["systems"]["etcd"]
    assert 3.0 == plain["ratios"]["jarvis-majority to nats"]["writes_per_s"]


def test_only_like_is_compared_with_like():
    one, redis = Result("jarvis", values=OURS.values), Result("redis", values=THEIRS.values)
    etcd = Result("etcd", values={"writes_per_s": 1.0, "increments_per_s": 3.0})
    compared = compare([one, redis, THEIRS, etcd])
    assert {("jarvis", "redis"), ("jarvis", "etcd")} == compared.keys()
    assert [3.0] == [value for value in compared["jarvis", "etcd"] if value is not None]


def test_a_target_that_was_missed_says_so():
    redis = Result("redis", values={"writes_per_s": 6000.0})
    names = ("clients", "keys", "rounds", "seconds", "samples", "cores", "sync_us", "load_before")
    setting = dict.fromkeys(names, 1)
    page = build_page([Result("jarvis", values=OURS.values), redis, GONE], setting)
    assert "| writes/s, `one`, to Redis | at least 1 | 0.50 | **no** |" in page
    assert "| hot counter, writers on every node, to etcd | at least 100 | - | - |" in page
    assert "etcd is missing: not built" in page


def test_a_page_keeps_everything_around_what_was_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: a -->\nold\n<!-- end -->\nbetween\n<!-- measured: b -->\n<!-- end -->\n")
    write_section(page, "a", markdown(("x", "y"), [("1", "2")]))
    assert (
        "before\n<!-- measured: a -->\n\n| x | y |\n| --- | ---: |\n| 1 | 2 |\n\n<!-- end -->\n"
        "between\n<!-- measured: b -->\n<!-- end -->\n"
    ) == page.read_text()
    with pytest.raises(ValueError, match="0 sections named c"):
        write_section(page, "c", "")
