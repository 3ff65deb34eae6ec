"""The matrix of switches is what it says: legal, and in each pair of settings that may stand together."""

from itertools import combinations

import pytest

from tests.chart.conftest import Render
from tests.chart.matrix import everything_on, is_legal, matrix, switches


def test_every_setting_of_every_switch_is_in_a_row():
    """If not, a rule across keys refuses it beside the defaults: add what it needs to `_MORE`."""
    found = {(key, settings.index(row[key])) for row in matrix() for key, settings in switches().items()}

    assert set() == {(key, number) for key, settings in switches().items() for number in range(len(settings))} - found


def test_any_two_settings_meet_but_for_those_that_the_rules_keep_apart():
    keys = ("ingress.enabled", "ingress.hosts", "security.enable_tls", "security.network_policies")
    met = {
        ((one, repr(row[one])), (other, repr(row[other]))) for row in matrix() for one, other in combinations(keys, 2)
    }
    possible = {
        ((one, repr(first)), (other, repr(second)))
        for one, other in combinations(keys, 2)
        for first in switches()[one]
        for second in switches()[other]
    }

    assert {(("ingress.enabled", "True"), ("ingress.hosts", "[]"))} == possible - met


def test_rows_in_which_all_is_on_are_legal():
    assert [] == [row for row in everything_on() if not is_legal(row)]


def test_the_same_matrix_is_made_each_time():
    assert matrix.__wrapped__() == matrix()


@pytest.mark.parametrize("values", [{"ingress.enabled": True}, {"gateway.enabled": True}])
def test_a_row_that_a_rule_refuses_is_told_from_others(render: Render, values: dict):
    assert (True, False) == (is_legal({}), is_legal(values))
