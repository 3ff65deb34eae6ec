"""The plugin that the service brings along: the conflict strategies that rules name without a plugin."""

from collections.abc import Mapping

from crdt_service.plugins.hook import Strategy, hookimpl
from crdt_service.resolution.strategy import STRATEGIES


@hookimpl
def conflict_strategies() -> Mapping[str, Strategy]:
    """Return the built-in strategies."""
    return STRATEGIES
