"""The process of one plugin as its parent sees it: started, asked, and killed when it hangs."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from crdt_service.kernel.config import PluginConfig
from crdt_service.kernel.error import MalformedError, ServiceError
from crdt_service.plugins.message import AnyAnswer, Call, Configure, Failed, Ready, answer_decoder, encode
from crdt_service.wire.frame import FRAME_BYTES_MAX, FrameBuffer

# An interpreter, the imports of a plugin and its `configure`, on a busy machine.
START_SECONDS_MAX = 20.0
# Raising either lets more requests wait for a slow plugin; beyond them, requests are refused.
CALLS_MAX = 256
UNSENT_BYTES_MAX = 32 << 20
_ROOT = str(Path(__file__).parents[2])
_HANDED_DOWN = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


class PluginError(Exception):
    """A plugin did not do what it was asked; the message says why."""


class BusyError(ServiceError):
    """Too many calls wait for a plugin."""

    def __init__(self, name: str) -> None:
        super().__init__("plugin_unavailable", f"plugin {name}: too many requests wait for it", "retry later")


def spawn(config: PluginConfig) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Start a plugin's process, which waits to be configured; return it and this end of the socket to it."""
    ours, theirs = socket.socketpair()
    environment = {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crdt_service.plugins.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=environment,
            start_new_session=True,  # So that what the plugin starts is killed with it.
        )
    return process, ours


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a plugin's process, and those that it started, at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def configure(config: PluginConfig, directory: str) -> bytes:
    """Return the frame that configures a plugin."""
    settings = msgspec.json.encode(config.settings)
    return encode(Configure(config.name, directory, config.memory_mib << 20, settings))


class Worker(asyncio.Protocol):
    """A running plugin.

    Calls are answered in order, so the time that the plugin has for one starts once those before it are answered.

    Args:
        config: The plugin.
        on_failure: Learns of each failure, once, and whether it cost the process.

    Attributes:
        ready: What the plugin implements, once it is loaded.
        closed: Set once the process is given up.
    """

    def __init__(self, config: PluginConfig, on_failure: Callable[[str, bool], None]) -> None:
        self.ready = Ready((), ())
        self.closed = asyncio.Event()
        self._config = config
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._buffer = FrameBuffer(FRAME_BYTES_MAX)
        self._waiting: deque[asyncio.Future[AnyAnswer]] = deque()
        self._allowed_seconds = START_SECONDS_MAX
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, directory: str) -> None:
        """Start the process and wait until the plugin is loaded.

        Raises:
            PluginError: It cannot be.
        """
        self._process, ours = spawn(self._config)
        await self._loop.create_connection(lambda: self, sock=ours)
        answer = await self._ask(configure(self._config, directory))
        if not isinstance(answer, Ready):
            self.close("it answered something else than what it implements")
            raise PluginError(self._config.name)
        self.ready = answer
        self._allowed_seconds = self._config.timeout_ms / 1000
        if self._timer is not None:  # It looks only when a start would have taken too long.
            self._timer.cancel()
            self._timer = None

    async def call(self, call: Call) -> AnyAnswer:
        """Return the plugin's answer.

        Raises:
            PluginError: It raised, was too slow, or its process ended.
            BusyError: Too many calls wait.
        """
        try:
            frame = encode(call)
        except MalformedError as error:
            raise PluginError(error.message) from error
        return await self._ask(frame)

    def close(self, failure: str = "") -> None:
        """End the process; calls that wait fail. A failure is reported."""
        if self.closed.is_set():
            return
        self.closed.set()
        if failure:
            self._on_failure(failure, True)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        error = PluginError(failure or "it was stopped")
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
        if self._process is not None:
            kill(self._process)
            self._loop.run_in_executor(None, self._process.wait)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """Take in that the process is gone."""
        self.close("its process ended")

    def data_received(self, data: bytes) -> None:
        """Hand answers to who waits for them, in order."""
        self._buffer.feed(data)
        try:
            while (body := self._buffer.next_frame()) is not None:
                self._receive(answer_decoder.decode(body))
        except (MalformedError, msgspec.DecodeError, IndexError) as error:
            self.close(f"its process answered something else: {error}")

    async def _ask(self, frame: bytes) -> AnyAnswer:
        if self.closed.is_set() or self._transport is None:
            raise PluginError("its process ended")
        if len(self._waiting) >= CALLS_MAX or self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            raise BusyError(self._config.name)
        future: asyncio.Future[AnyAnswer] = self._loop.create_future()
        if not self._waiting:
            self._deadline = self._loop.time() + self._allowed_seconds
            if self._timer is None:
                self._timer = self._loop.call_at(self._deadline, self._look)
        self._waiting.append(future)
        self._transport.write(frame)
        return await future

    def _receive(self, answer: AnyAnswer) -> None:
        future = self._waiting.popleft()
        self._deadline = self._loop.time() + self._allowed_seconds
        if not isinstance(answer, Failed):
            if not future.done():
                future.set_result(answer)
            return
        if not future.done():
            future.set_exception(PluginError(answer.message))
        if answer.is_fatal:
            self.close(answer.message)
        else:
            self._on_failure(answer.message, False)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._loop.time() >= self._deadline:
            self.close(f"no answer within {self._allowed_seconds * 1000:.0f} ms")
        else:
            self._timer = self._loop.call_at(self._deadline, self._look)
