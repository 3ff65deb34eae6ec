"""Kubernetes' quantities: what they amount to, and what is none, however long it is."""

import pytest

from harness.spec.quantity import read_quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("500m", 0.5),
        ("2Gi", 2.0**31),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ("1E", 1e18),
        (".5", 0.5),
        ("-1", -1.0),
        (2, 2.0),
        (1e-07, 1e-07),
        (" 7 ", 7.0),
        ("100n", 1e-07),
        ("1.5Ei", 1.5 * 2**60),
    ],
)
def test_a_quantity_is_read_in_its_base_unit(text, amount):
    assert amount == read_quantity(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "m", "1mm", "1 m", "1iK", "1_000", "NaN", "Infinity", "sNaN", "1e9999", "1e999999999Ki", "0x1", "1e"),
        *("\u0661", "9" * 900_000, "0." + "1" * 900_000, "9" * 900_000 + "Mi", float("inf"), float("nan")),
    ],
    ids=lambda text: str(text)[:12],
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="not a quantity") as raised:
        read_quantity(text)
    assert len(str(raised.value)) < 100
