"""All plugins of a backend, in their order: what a request passes on its way in and out."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from crdt_service.kernel.config import PluginsConfig
from crdt_service.kernel.error import ServiceError
from crdt_service.plugins.caller import Caller
from crdt_service.plugins.message import (
    Call,
    PassValues,
    PassWrites,
    Refused,
    Serve,
    Served,
    Tell,
    Texts,
    Value,
    Write,
)
from crdt_service.plugins.plugin import Plugin, PluginView
from crdt_service.plugins.process import PluginError

# The operation that a deletion is to plugins; it has no type.
DELETION = b"null"
_WRITE_HOOKS = ("validate_write", "transform_write")
_READ_HOOKS = ("transform_read",)
# Raising it lets listeners hear of changes later once nodes can be reached again.
_SUBSCRIBE_SECONDS = 1.0
_log = logging.getLogger(__name__)
_AS_IT_IS = Texts(())


class Subscription(Protocol):
    """Where changes come from: batches of changes, each as JSON, from now on."""

    def __call__(self) -> AsyncIterator[Sequence[bytes]]:
        """Subscribe."""
        ...


class Plugins:
    """The plugins of a backend.

    Args:
        config: Which they are.
        on_failure: Learns a plugin's name at each of its failures.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        config: PluginsConfig,
        on_failure: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plugins = [Plugin(each, config.directory, clock, on_failure) for each in config.plugins]
        self._writers: list[Plugin] = []
        self._readers: list[Plugin] = []
        self._sort()

    @property
    def passes_writes(self) -> bool:
        """Whether a write must pass any plugin."""
        return bool(self._writers)

    @property
    def passes_values(self) -> bool:
        """Whether a value must pass any plugin on its way to a reader."""
        return bool(self._readers)

    def views(self) -> list[PluginView]:
        """Return every plugin, in order."""
        return [plugin.view() for plugin in self._plugins]

    async def run(self, on_ready: Callable[[Plugin], None], subscribe: Subscription | None = None) -> None:
        """Keep every plugin running, and tell those that listen of changes, until cancelled."""
        listening: set[str] = set()

        def admit(plugin: Plugin) -> None:
            self._sort()
            on_ready(plugin)
            if subscribe is not None and plugin.has("on_change") and plugin.name not in listening:
                listening.add(plugin.name)
                group.create_task(_tell(plugin, subscribe))

        async with asyncio.TaskGroup() as group:
            for plugin in self._plugins:
                group.create_task(plugin.run(admit))

    async def wait_tried(self) -> None:
        """Wait until every plugin was loaded or could not be."""
        for plugin in self._plugins:
            await plugin.tried.wait()

    async def pass_write(self, key: str, type_name: str, op: bytes, caller: Caller) -> bytes:
        """Return the operation that is to be done.

        Raises:
            ServiceError: A plugin refuses it, or a required plugin is not there: nothing may be done.
        """
        (passed,) = await self.pass_writes([Write(key, type_name, op)], caller)
        if isinstance(passed, ServiceError):
            raise passed
        return passed.op

    async def pass_writes(self, writes: Sequence[Write], caller: Caller) -> list[Write | ServiceError]:
        """Return the writes of one request as they are to be done, or why one must not be; in their order.

        Raises:
            ServiceError: A required plugin is not there: nothing of the request may be done.
        """
        passed: list[Write | ServiceError] = list(writes)
        for plugin in self._writers:
            places = [place for place, write in enumerate(passed) if isinstance(write, Write)]
            asked = [write for write in passed if isinstance(write, Write)]
            answer = await self._pass(plugin, PassWrites(caller, tuple(asked)), len(asked)) if asked else _AS_IT_IS
            for place, write, text in zip(places, asked, answer.texts, strict=False):
                if text:
                    passed[place] = Write(write.key, write.type_name, text)
            for number, message in answer.refusals.items():
                if number < len(places):
                    passed[places[number]] = _refuse(plugin, message)
        return passed

    async def pass_values(self, values: Sequence[Value]) -> list[Value]:
        """Return the values of one answer as they are to be shown; plugins are asked in reverse order.

        Raises:
            ServiceError: A required plugin is not there.
        """
        passed = list(values)
        for plugin in self._readers:
            answer = await self._pass(plugin, PassValues(tuple(passed)), len(passed))
            for place, text in enumerate(answer.texts):
                if text:
                    passed[place] = Value(passed[place].key, passed[place].type_name, text)
        return passed

    async def serve(self, plugin: Plugin, call: Serve) -> Served:
        """Return what an endpoint answers.

        Raises:
            ServiceError: It refuses, or cannot be asked.
        """
        try:
            answer = await plugin.call(call)
        except PluginError as error:
            raise plugin.unavailable(error) from error
        if isinstance(answer, Refused):
            raise _refuse(plugin, answer.message)
        if not isinstance(answer, Served):
            raise plugin.unavailable(PluginError("it answered something else"))
        return answer

    async def _pass(self, plugin: Plugin, call: Call, count: int) -> Texts:
        try:
            answer = await plugin.call(call)
            if not isinstance(answer, Texts) or len(answer.texts) != count:
                raise PluginError("it answered something else")
        except PluginError as error:
            if plugin.is_required:
                raise plugin.unavailable(error) from error
            return _AS_IT_IS
        return answer

    def _sort(self) -> None:
        self._writers = [plugin for plugin in self._plugins if any(map(plugin.has, _WRITE_HOOKS))]
        self._readers = [plugin for plugin in reversed(self._plugins) if any(map(plugin.has, _READ_HOOKS))]


def _refuse(plugin: Plugin, message: str) -> ServiceError:
    remedy = "nothing was done; send what the plugin takes"
    return ServiceError("plugin_refused", f"plugin {plugin.name}: {message}", remedy)


async def _tell(plugin: Plugin, subscribe: Subscription) -> None:
    """Tell a plugin of changes; those that come while it fails are lost to it."""
    while True:
        try:
            async for batch in subscribe():
                with contextlib.suppress(PluginError, ServiceError):
                    await plugin.call(Tell(tuple(batch)))
        except ServiceError:
            _log.info("plugin %s: no node tells of changes", plugin.name)
        await asyncio.sleep(_SUBSCRIBE_SECONDS)
