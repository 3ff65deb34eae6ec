"""Plugins in real processes, from files that a test writes."""

import asyncio
import contextlib

import pytest
import uvloop

from crdt_service.kernel.config import PluginConfig, PluginsConfig
from crdt_service.plugins.host import Plugins

_HEAD = """
import os, sys, time
from crdt_service.plugins.hook import Endpoint, Refusal, Reply, hookimpl
"""


def pytest_asyncio_loop_factories(config, item):
    """Processes are asked over the loop in use: its transports differ from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


class Rig:
    """Runs plugins; `failures` names those that failed, in order."""

    def __init__(self, directory):
        self.directory = directory
        self.failures: list[str] = []
        self.ready: list[str] = []
        self.configs: list[PluginConfig] = []

    def add(self, name: str, source: str, **options):
        (self.directory / f"{name}.py").write_text(_HEAD + source)
        defaults = {"required": False, "timeout_ms": 10_000, "memory_mib": 256, "settings": {}}
        self.configs.append(PluginConfig(name, **{**defaults, **options}))

    @contextlib.asynccontextmanager
    async def run(self, subscribe=None):
        plugins = Plugins(PluginsConfig(str(self.directory), self.configs), self.failures.append)
        running = asyncio.create_task(plugins.run(lambda plugin: self.ready.append(plugin.name), subscribe))
        try:
            await plugins.wait_tried()
            yield plugins
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def states(plugins: Plugins) -> list[str]:
    return [view.state for view in plugins.views()]


async def wait_for(probe, what: str):
    """Poll until `probe` is true."""
    for _ in range(6000):
        if probe():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(what)
