"""A check as data, and the one function that runs a list of them."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import msgspec

from harness.failure import Failure

T = TypeVar("T")

Verdict = Literal["healthy", "degraded", "unhealthy", "skipped"]
Overall = Literal["healthy", "degraded", "unhealthy"]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one check found.

    Attributes:
        name: The check's name.
        verdict: `skipped` when an earlier check made it pointless, reading what it needs is not allowed, or nothing is
            there to look at.
        detail: What was seen, with numbers and units.
        hint: What to do about it; empty for a healthy or skipped one.
        duration_ms: How long it took, in milliseconds.
    """

    name: str
    verdict: Verdict
    detail: str
    hint: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's own answer. An empty `hint` stands for the check's usual one."""

    verdict: Verdict
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    """One thing to find out.

    Attributes:
        name: What it is about.
        hint: What to do when it does not find what it should.
        fatal: Whether the checks after it are pointless when it is unhealthy.
        deadline_seconds: How long it may wait for what it looks at.
        function: Looks; a Failure that it raises is an unhealthy finding.
    """

    name: str
    hint: str
    fatal: bool
    deadline_seconds: float
    function: Callable[[T, float], Finding]


def run_checks(checks: Iterable[Check[T]], subject: T, clock: Callable[[], float] = time.monotonic) -> Iterator[Row]:
    """Run checks in order and yield what each found, as soon as it did."""
    stopped_by = ""
    for check in checks:
        if stopped_by:
            yield Row(name=check.name, verdict="skipped", detail=f"needs: {stopped_by}", hint="", duration_ms=0)
            continue
        start = clock()
        try:
            finding = check.function(subject, check.deadline_seconds)
        except Failure as failure:
            finding = Finding("unhealthy", failure.message, failure.remedy)
        if check.fatal and finding.verdict == "unhealthy":
            stopped_by = check.name
        amiss = finding.verdict in ("degraded", "unhealthy")
        yield Row(
            name=check.name,
            verdict=finding.verdict,
            detail=finding.detail,
            hint=(finding.hint or check.hint) if amiss else "",
            duration_ms=round((clock() - start) * 1000),
        )


def overall_of(rows: Iterable[Row]) -> Overall:
    """Return the worst verdict; skipped rows do not count, since what made them so does."""
    verdicts = {row.verdict for row in rows}
    if "unhealthy" in verdicts:
        return "unhealthy"
    return "degraded" if "degraded" in verdicts else "healthy"
