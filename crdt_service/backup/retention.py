"""Which backups to keep: the newest of each of the last hours, days and weeks that have one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from crdt_service.backup.manifest import read_time


@dataclass(frozen=True)
class Retention:
    """How many to keep of each kind; a backup may count for several.

    Attributes:
        hourly: Hours.
        daily: Days, by UTC.
        weekly: ISO weeks, from Monday, by UTC.
    """

    hourly: int
    daily: int
    weekly: int


def choose_kept(backups: Iterable[str], retention: Retention) -> set[str]:
    """Return the ids of those to keep, of all ids that there are; always the newest."""
    newest_first = sorted(backups, reverse=True)
    kept = set(newest_first[:1])
    for count, name_period in (
        (retention.hourly, _hour),
        (retention.daily, _day),
        (retention.weekly, _week),
    ):
        kept |= _choose(newest_first, count, name_period)
    return kept


def _choose(newest_first: list[str], count: int, name_period: Callable[[datetime], tuple[int, ...]]) -> set[str]:
    chosen: dict[tuple[int, ...], str] = {}
    for backup in newest_first:
        period = name_period(read_time(backup))
        if period not in chosen and len(chosen) < count:
            chosen[period] = backup
    return set(chosen.values())


def _hour(time: datetime) -> tuple[int, ...]:
    return (*_day(time), time.hour)


def _day(time: datetime) -> tuple[int, ...]:
    return time.year, time.month, time.day


def _week(time: datetime) -> tuple[int, ...]:
    return tuple(time.isocalendar()[:2])
