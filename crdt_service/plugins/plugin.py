"""One plugin as the backend has it: kept running, asked, left alone when it fails."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from crdt_service.kernel.config import PluginConfig
from crdt_service.kernel.error import ServiceError
from crdt_service.plugins.breaker import ACTIVE, DISABLED, FAILING, Breaker
from crdt_service.plugins.message import AnyAnswer, Call, Page, Ready
from crdt_service.plugins.process import PluginError, Worker

# Between two starts of a process that fails; the breaker makes it longer.
RESTART_SECONDS = 0.2
_log = logging.getLogger(__name__)


class PluginView(msgspec.Struct):
    """A plugin as people see it.

    Attributes:
        name: As configured.
        state: active, failing (its last call or start failed) or disabled (left alone for a while).
        required: Whether requests are refused while it is not active.
        hooks: What it implements, as far as it was ever loaded.
        error: Its last failure, empty while there is none.
    """

    name: str
    state: str
    required: bool
    hooks: list[str]
    error: str


class Plugin:
    """Keeps a plugin's process running, within its breaker.

    Args:
        config: The plugin.
        directory: Where plugins are mounted; empty for none.
        clock: Seconds, monotonic.
        on_failure: Learns the plugin's name at each failure.

    Attributes:
        ready: What it implements, since it was loaded first; None before.
        tried: Set once it was loaded, or could not be.
    """

    def __init__(
        self, config: PluginConfig, directory: str, clock: Callable[[], float], on_failure: Callable[[str], None]
    ) -> None:
        self.name = config.name
        self.is_required = config.required
        self.ready: Ready | None = None
        self.tried = asyncio.Event()
        self._config = config
        self._directory = directory
        self._clock = clock
        self._report = on_failure
        self._breaker = Breaker()
        self._worker: Worker | None = None

    @property
    def state(self) -> str:
        """How it does: active, failing or disabled."""
        state = self._breaker.state(self._clock())
        return FAILING if state == ACTIVE and self._worker is None else state

    def view(self) -> PluginView:
        """Return it as people see it."""
        state = self.state
        hooks = list(self.ready.hooks) if self.ready else []
        error = self._breaker.error or ("" if state == ACTIVE else "its process starts")
        return PluginView(self.name, state, self.is_required, hooks, error)

    def pages(self) -> tuple[Page, ...]:
        """Return the endpoints that it serves."""
        return self.ready.pages if self.ready else ()

    def has(self, hook: str) -> bool:
        """Tell whether it has a part in what a hook is for; a required one has until it says otherwise."""
        return self.is_required if self.ready is None else hook in self.ready.hooks

    async def run(self, on_ready: Callable[["Plugin"], None]) -> None:
        """Start its process whenever there is none, until cancelled; `on_ready` learns of each start."""
        try:
            while True:
                await asyncio.sleep(max(0.0, self._breaker.retry_at - self._clock()))
                worker = Worker(self._config, self._fail)
                try:
                    await worker.start(self._directory)
                    self.ready = worker.ready
                    self._worker = worker
                    on_ready(self)
                    self.tried.set()
                    await worker.closed.wait()
                except (PluginError, OSError) as error:
                    worker.close(str(error))
                finally:
                    self._worker = None
                    worker.close()
                self.tried.set()
                await asyncio.sleep(RESTART_SECONDS)
        finally:
            self.tried.set()

    async def call(self, call: Call) -> AnyAnswer:
        """Return its answer.

        Raises:
            PluginError: It is not running, or failed.
            ServiceError: Too many calls wait for it.
        """
        if self._worker is None:
            raise PluginError(self._breaker.error or "its process starts")
        answer = await self._worker.call(call)
        self._breaker.succeed()
        return answer

    def unavailable(self, error: PluginError) -> ServiceError:
        """Return what a request is refused with."""
        return ServiceError(
            "plugin_unavailable",
            f"plugin {self.name}: {error}",
            "nothing was done; retry later, or see the plugin in /health",
        )

    def _fail(self, error: str, is_loss: bool) -> None:
        now = self._clock()
        self._breaker.fail(error, now, is_loss=is_loss)
        self._report(self.name)
        if self._breaker.state(now) == DISABLED:
            seconds = self._breaker.retry_at - now
            _log.error("plugin %s is disabled for %.0f s: %s", self.name, seconds, error)
            if self._worker is not None:
                self._worker.close()
        else:
            _log.warning("plugin %s failed: %s", self.name, error)
