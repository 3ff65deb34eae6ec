"""What decides conflicts, collected through the hook: the built-in strategies, and those of plugins that rules name.

Strategies run in the node's own process, because a decision is part of every read. One that hangs holds the node; what
raises or answers nonsense does no harm.
"""

import logging
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence

from crdt_service.kernel.config import ConflictRule, PluginConfig, PluginsConfig
from crdt_service.kernel.error import ConfigError
from crdt_service.plugins import built_in
from crdt_service.plugins.breaker import DISABLED, Breaker
from crdt_service.plugins.hook import Sibling, Strategy, Undecided, Verdict
from crdt_service.plugins.load import bind, load
from crdt_service.plugins.message import shorten
from crdt_service.resolution.strategy import find_plugin

# Raising them lets a plugin's strategy take longer over what one key holds.
SIBLINGS_MAX = 256
BYTES_MAX = 1 << 20
# Of the processor, so that a busy machine disables nothing; raising it lets a strategy delay all requests for longer.
SECONDS_MAX = 0.05
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_log = logging.getLogger(__name__)


class Resolvers:
    """The strategies that rules may name.

    Args:
        config: The node's plugins; only those that `rules` name are loaded.
        rules: The rules of the configuration.
        clock: Seconds, monotonic.
        processor_clock: Seconds of the processor that this thread used.
        on_failure: Learns a plugin's name at each of its failures.

    Attributes:
        strategies: By name; that of a plugin is ``PLUGIN.STRATEGY``.

    Raises:
        ConfigError: A rule names a plugin that is not there, or that cannot be loaded.
    """

    def __init__(
        self,
        config: PluginsConfig,
        rules: Iterable[ConflictRule],
        *,
        clock: Callable[[], float],
        processor_clock: Callable[[], float],
        on_failure: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}
        self.strategies: dict[str, Strategy] = dict(bind(built_in).conflict_strategies())
        configured = {plugin.name: plugin for plugin in config.plugins}
        for name in sorted({find_plugin(rule.strategy) for rule in rules} - {""}):
            if name not in configured:
                raise ConfigError(
                    f"crdt.conflict_rules: a strategy is of the plugin {name}, which is not configured",
                    f"give this node --plugins with {name}, or name another strategy",
                )
            breaker = self._breakers[name] = Breaker()
            for each, strategy in _load(configured[name], config.directory).items():
                self.strategies[f"{name}.{each}"] = Guard(
                    name, strategy, breaker, clock=clock, processor_clock=processor_clock, on_failure=on_failure
                )

    def states(self) -> list[str]:
        """Return active, failing or disabled for each plugin that was loaded."""
        return [breaker.state(self._clock()) for breaker in self._breakers.values()]


class Guard:
    """A plugin's strategy: what it raises, or returns and must not, leaves the decision to the next rule.

    That depends on the siblings alone, so nodes still decide alike. Only a plugin that takes too long is disabled for
    a while on the node where it does: there, answering at all goes before answering as others do.

    Args:
        plugin: Name of the plugin.
        strategy: What it returned.
        breaker: The plugin's.
        clock: Seconds, monotonic.
        processor_clock: Seconds of the processor that this thread used.
        on_failure: Learns the plugin's name at each failure.
    """

    def __init__(
        self,
        plugin: str,
        strategy: Strategy,
        breaker: Breaker,
        *,
        clock: Callable[[], float],
        processor_clock: Callable[[], float],
        on_failure: Callable[[str], None],
    ) -> None:
        self._plugin = plugin
        self._strategy = strategy
        self._breaker = breaker
        self._clock = clock
        self._processor_clock = processor_clock
        self._on_failure = on_failure
        self._has_failed = False

    def __call__(self, siblings: Sequence[Sibling], sources: Sequence[str]) -> Verdict | Undecided:
        """Return the plugin's verdict, one of the siblings' values, or why there is none."""
        if len(siblings) > SIBLINGS_MAX or sum(len(sibling.text) for sibling in siblings) > BYTES_MAX:
            return Undecided(f"more than {SIBLINGS_MAX} siblings or {BYTES_MAX >> 20} MiB, which no plugin gets")
        if self._breaker.state(self._clock()) == DISABLED:
            return Undecided(f"the plugin {self._plugin} is disabled: {self._breaker.error}")
        started = self._processor_clock()
        answer = self._ask(tuple(siblings), tuple(sources))
        if self._processor_clock() - started > SECONDS_MAX:
            error = f"it took more than {SECONDS_MAX * 1000:.0f} ms for a decision"
            self._fail(error)
            self._breaker.fail(error, self._clock(), is_loss=True)
        return answer

    def _ask(self, siblings: tuple[Sibling, ...], sources: tuple[str, ...]) -> Verdict | Undecided:
        try:
            answer = self._strategy(siblings, sources)
        except (Exception, SystemExit) as error:
            said = "".join(traceback.format_exception_only(error)).strip()
            return self._fail(f"it raised {said}")
        if not isinstance(answer, Verdict | Undecided) or not isinstance(answer.because, str):
            return self._fail("it returned neither a Verdict nor Undecided")
        because = shorten(answer.because)
        if isinstance(answer, Undecided):
            return Undecided(because)
        if not isinstance(answer.text, bytes) or answer.text not in [sibling.text for sibling in siblings]:
            return self._fail("it returned none of the siblings")
        return Verdict(answer.text, because)

    def _fail(self, error: str) -> Undecided:
        self._on_failure(self._plugin)
        if not self._has_failed:  # Once: a read must not fill the log.
            self._has_failed = True
            _log.warning("plugin %s failed to decide a conflict: %s", self._plugin, shorten(error))
        return Undecided(shorten(f"the plugin {self._plugin} failed: {error}"))


def _load(config: PluginConfig, directory: str) -> Mapping[str, Strategy]:
    try:
        hook = bind(load(config.name, directory))
        hook.configure(settings=config.settings)
        strategies = dict(hook.conflict_strategies() or {})
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in strategies):
            raise ValueError("a strategy has a name of other than 1 to 31 of a-z, 0-9 and _")
        if not all(map(callable, strategies.values())):
            raise TypeError("a strategy cannot be called")
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"plugin {config.name}: {shorten(f'{type(error).__name__}: {error}')}",
            "install it on this node, or correct it or its settings",
        ) from error
    return strategies
