"""What a journal on a real directory, with a disk that can be full or broken, reports."""

import random

import pytest

from crdt_service.disk.journal import Journal
from crdt_service.disk.measured import MeasuredJournal
from crdt_service.kernel.error import StorageFullError
from tests.unit.service.double import FaultyDisk, NullObserver


class Clock:
    """Each look costs a second."""

    seconds = 0.0

    def __call__(self):
        self.seconds += 1
        return self.seconds


@pytest.fixture
def disk(tmp_path):
    return FaultyDisk(tmp_path)


@pytest.fixture
def observer():
    return NullObserver()


@pytest.fixture
def journal(disk, observer):
    opened = Journal(disk, "node-0", random.Random(1))
    list(opened.recover())
    yield MeasuredJournal(opened, observer, Clock())
    opened.close()


def test_appends_and_checkpoints_are_timed(journal, observer):
    journal.append(b"x")
    number = journal.rotate()
    journal.write_snapshot(number, [b"x"], last=False)
    journal.write_snapshot(number, [b"y"], last=True)

    assert [("on_disk_operation", "append", 1.0), ("on_disk_operation", "checkpoint", 1.0)] == observer.calls
    assert 1.0 <= journal.append_seconds(0.99) <= 1.5


def test_a_full_disk_is_counted_and_stands_until_something_fits(journal, disk, observer):
    disk.is_full = True
    with pytest.raises(StorageFullError):
        journal.append(b"x")
    assert (True, "on_disk_error") == (journal.is_refusing, observer.calls[0][0])
    assert isinstance(observer.calls[0][1], StorageFullError)
    assert 0.0 == journal.append_seconds(0.99)

    disk.is_full = False
    journal.append(b"x")
    assert not journal.is_refusing


def test_a_failing_disk_is_counted(journal, disk, observer):
    disk.is_broken = True
    with pytest.raises(OSError, match="Input/output"):
        journal.append(b"x")
    with pytest.raises(OSError, match="Input/output"):
        journal.rotate()
    assert ["on_disk_error", "on_disk_error"] == [name for name, *_ in observer.calls]


def test_a_disk_that_fails_at_rest_is_counted(journal, disk, observer):
    journal.append(b"x")
    observer.calls.clear()
    journal.rest()
    journal.append(b"y")
    disk.is_broken = True
    with pytest.raises(OSError, match="Input/output"):
        journal.rest()
    assert ["on_disk_operation", "on_disk_error"] == [name for name, *_ in observer.calls]


def test_a_checkpoint_that_did_not_fit_is_counted_and_the_next_is_timed_anew(journal, disk, observer):
    journal.append(b"x")
    number = journal.rotate()
    disk.is_full = True
    with pytest.raises(OSError, match="space"):
        journal.write_snapshot(number, [b"x"], last=False)
    disk.is_full = False
    observer.calls.clear()
    journal.write_snapshot(number, [b"x"], last=True)
    assert [("on_disk_operation", "checkpoint", 1.0)] == observer.calls
