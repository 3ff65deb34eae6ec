"""Doubles of clock and disk."""

import errno
import os

from crdt_service.disk.disk import Disk


class FakeClock:
    def __init__(self, seconds=1_000_000.0):
        self.seconds = seconds

    def now_seconds(self):
        return self.seconds


class FaultyDisk(Disk):
    """A disk that is full or broken when told so; a full one takes half of each write first."""

    def __init__(self, directory):
        super().__init__(directory)
        self.is_full = False
        self.is_broken = False

    def write(self, descriptor, data):
        if self.is_full:
            super().write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data)

    def sync(self, descriptor):
        if self.is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


class NullObserver:
    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))
