"""No write counts twice, and no refused one at all."""

from tests.sim.judge.total import totals


def find(history):
    for key, verb, _, possible, final in totals(history):
        if final > possible:
            return f"{key} holds {verb}s of {final}, at most {possible} were sent and not refused"
    return None
