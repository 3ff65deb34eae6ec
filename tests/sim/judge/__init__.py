"""The judges: each is pure, gets the history, and returns what is wrong, or nothing."""

from tests.sim.judge import (
    availability,
    bound,
    convergence,
    correction,
    double_count,
    garbage,
    hidden_type,
    lost_write,
    phantom,
    resurrection,
    retraction,
    stale_read,
    surprise,
    two_majorities,
)

JUDGES = (
    convergence,
    lost_write,
    hidden_type,
    double_count,
    phantom,
    resurrection,
    retraction,
    stale_read,
    two_majorities,
    correction,
    bound,
    garbage,
    availability,
    surprise,
)


def judge_all(history):
    """Return the finding of each judge that has one, by its name."""
    findings = {judge.__name__.rpartition(".")[2]: judge.find(history) for judge in JUDGES}
    return {name: finding for name, finding in findings.items() if finding}
