"""A disk in memory that loses at a crash what was not synced: whole, in part, torn at any byte or sector, or as zeros.

A file enlarged ahead of its writes holds zeros where none of them arrived.

Names are durable once their directory is synced; of the changes since then, each may or may not survive.
"""

import contextlib
import errno
import os
from functools import partial
from pathlib import PurePosixPath

from crdt_service.disk.disk import Disk
from crdt_service.disk.mark import BLOCK_BYTES, COPY_BYTES, MARK, decode_copy
from crdt_service.kernel.error import ConfigError
from crdt_service.wire.record import RecordScan

_SECTOR_BYTES = 512


class PowerLoss(BaseException):
    """The machine went dark amid an operation; no handler of the code under test may run."""


class _File:
    def __init__(self, data=b""):
        self.durable = data
        self.data = data
        self.pending = []  # Writes (offset, bytes) and new sizes (int) since the last sync.

    def change(self, operation):
        self.pending.append(operation)
        self.data = _apply(self.data, operation)

    def sync(self):
        self.durable = self.data
        self.pending = []

    def tear(self, randomness):
        """Keep the first few of the pending operations, and a part of the next."""
        kept = randomness.randint(0, len(self.pending))
        data = self.durable
        for operation in self.pending[:kept]:
            data = _apply(data, operation)
        if kept < len(self.pending) and not isinstance(self.pending[kept], int):
            data = _tear(data, *self.pending[kept], randomness)
        self.durable = self.data = data
        self.pending = []


def _apply(data, operation):
    if isinstance(operation, int):
        return data[:operation].ljust(operation, b"\0")
    offset, part = operation
    return data[:offset].ljust(offset, b"\0") + part + data[offset + len(part) :]


def _tear(data, offset, part, randomness):
    """Write a beginning of `part`, or that and later sectors; what lies between stays, or becomes zeros."""
    length = randomness.randint(0, len(part))
    torn = _apply(data, (offset, part[:length]))
    how = randomness.randrange(3)
    if how == 0:
        return torn
    torn = torn.ljust(offset + len(part), b"\0")
    later = -(-(offset + length) // _SECTOR_BYTES) * _SECTOR_BYTES - offset
    return torn if how == 1 or later >= len(part) else _apply(torn, (offset + later, part[later:]))


class SimDisk(Disk):
    """Attributes: what ails it (`fullness`, the share of writes it refuses, `sync_fails`, `operations_to_loss`)."""

    def __init__(self, name, randomness, trace):
        self.directory = PurePosixPath("/") / name
        self.fullness = 0.0
        self.sync_fails = False
        self.operations_to_loss = None
        self._name = name
        self._random = randomness
        self._trace = trace
        self._names = {}
        self._durable_names = {}
        self._pending_names = []
        self._open = {}
        self._next = 3
        self._is_locked = False
        self._has_power = True

    def kill(self):
        """End the process that uses it; the machine stays up, so what was written stays readable."""
        self._open.clear()
        self._is_locked = False

    def lose_power(self):
        self.kill()
        self._has_power = False
        for change in self._pending_names:
            if self._random.random() < 0.5:
                change(self._durable_names)
        self._names = dict(self._durable_names)
        self._pending_names = []
        for name in sorted(self._names):
            self._names[name].tear(self._random)

    def wipe(self):
        """Come back empty, as a new disk."""
        self._names, self._durable_names, self._pending_names = {}, {}, []

    def copy(self):
        """Return all that is there, as a snapshot of the volume."""
        return {name: file.data for name, file in self._names.items()}

    def restore(self, content):
        """Come back with what a snapshot holds."""
        self.wipe()
        self._names = {name: _File(data) for name, data in content.items()}
        self._durable_names = dict(self._names)

    def flip_tail(self, randomness):
        """Flip a bit in the last record of a powered-off disk's newest log; return whether there was one to flip.

        There is none unless the mark on the medium names that record as synced: without it such a flip cannot be told
        from a torn write, and is a second fault beside the power loss.
        """
        logs = [name for name in self._names if name.startswith("log-") and self.size(name)]
        copies = [self.read(MARK, slot * BLOCK_BYTES, COPY_BYTES) for slot in (0, 1)] if MARK in self._names else []
        marks = [copy for data in copies if (copy := decode_copy(data)) is not None]
        if self._has_power or not logs or not marks:
            return False
        name = max(logs)
        scan = RecordScan(partial(self.read, name))
        start = max((record.offset_bytes for record in scan), default=None)
        if start is None or max(marks).mark[:2] != (int(name.removeprefix("log-")), scan.offset_bytes):
            return False
        file = self._names[name]
        data = bytearray(file.data)
        data[randomness.randrange(start, scan.offset_bytes)] ^= 1 << randomness.randrange(8)
        file.durable = file.data = bytes(data)
        self._trace("disk", self._name, "flip", name)
        return True

    def power_on(self):
        self._has_power = True
        self.sync_fails = False
        self.operations_to_loss = None

    def lock(self):
        if self._is_locked:
            raise ConfigError(f"{self._name}: another process writes there", "stop it")
        self._is_locked = True
        return 0

    def names(self):
        return sorted(self._names)

    def size(self, name):
        return len(self._names[name].data)

    def read(self, name, offset_bytes, size_bytes):
        return self._names[name].data[offset_bytes : offset_bytes + size_bytes]

    def open(self, name):
        with self._operation("open", name):
            if name not in self._names:
                self._refuse_when_full(0.4)
                file = _File()
                self._rename(lambda names: names.__setitem__(name, file))
            self._next += 1
            self._open[self._next] = self._names[name]
        return self._next

    def allocate(self, descriptor, offset_bytes, size_bytes):
        with self._operation("allocate", size_bytes):
            file = self._open[descriptor]
            end = offset_bytes + size_bytes
            if self._random.random() < self.fullness:  # Some of it may have been found.
                file.change(max(len(file.data), self._random.randint(offset_bytes, end - 1)))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file.change(max(len(file.data), end))

    def write(self, descriptor, data, offset_bytes):
        with self._operation("write", len(data)):
            file = self._open[descriptor]
            if offset_bytes + len(data) > len(file.data) and self._random.random() < self.fullness:
                file.change((offset_bytes, bytes(data[: self._random.randrange(len(data))])))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file.change((offset_bytes, bytes(data)))

    def sync(self, descriptor):
        with self._operation("sync", descriptor):
            file = self._open[descriptor]
            if self.sync_fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if len(file.data) > len(file.durable):  # Blocks of what was written may be allocated only now.
                self._refuse_when_full(0.7)
            file.sync()

    def truncate(self, descriptor, size_bytes):
        with self._operation("truncate", size_bytes):
            self._open[descriptor].change(size_bytes)

    def close(self, descriptor):
        if descriptor == 0:
            self._is_locked = False
        self._open.pop(descriptor, None)

    def rename(self, old, new):
        with self._operation("rename", new):
            file = self._names[old]

            def change(names):
                names.pop(old, None)
                names[new] = file

            self._rename(change)

    def remove(self, name):
        with self._operation("remove", name):
            self._rename(lambda names: names.pop(name, None))

    def sync_directory(self):
        with self._operation("sync_directory", ""):
            if self._pending_names:
                self._refuse_when_full(0.4)
            self._durable_names = dict(self._names)
            self._pending_names = []

    def _rename(self, change):
        change(self._names)
        self._pending_names.append(change)

    def _refuse_when_full(self, probability):
        if self._random.random() < self.fullness * probability:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _operation(self, kind, what):
        """Count an operation, and lose power before or after its effect when its turn has come."""
        if not self._has_power:
            raise PowerLoss
        self._trace("disk", self._name, kind, what)
        is_last = False
        if self.operations_to_loss is not None:
            self.operations_to_loss -= 1
            is_last = self.operations_to_loss <= 0
        if is_last and self._random.random() < 0.5:
            self.lose_power()
            raise PowerLoss
        yield
        if is_last:
            self.lose_power()
            raise PowerLoss
