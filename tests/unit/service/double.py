"""Doubles of clock and disk, and the API's routes without a cluster."""

import errno
import os
import random

from crdt_service.api.feed.hub import Hub
from crdt_service.api.routes import make_routes
from crdt_service.disk.disk import Disk
from crdt_service.kernel.config import PluginsConfig
from crdt_service.plugins.host import Plugins


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

    def allocate(self, descriptor, offset_bytes, size_bytes):
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(descriptor, offset_bytes, size_bytes)

    def write(self, descriptor, data, offset_bytes):
        if self.is_full:
            super().write(descriptor, data[: len(data) // 2], offset_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, data, offset_bytes)

    def sync(self, descriptor):
        if self.is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


class NullObserver:
    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def make_all_routes(router=None):
    """Every route, over this router."""
    hub = Hub({}, random.Random(1))
    plugins = Plugins(PluginsConfig("", []))
    return make_routes(None, router, hub=hub, render_metrics=bytes, is_draining=bool, facts=None, plugins=plugins)
