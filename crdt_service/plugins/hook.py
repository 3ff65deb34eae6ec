"""The hooks, and the types that they speak: the one module that a plugin imports. docs/plugins.md explains them.

A plugin is an object whose methods, or a module whose functions, are marked with `hookimpl` and named as those of
`Hooks`; it may leave out parameters that it has no use for. Hooks run in a process of its own, one call at a time;
`configure` and `conflict_strategies` run in each node as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pluggy

from crdt_service.datatypes.mv_register import Sibling
from crdt_service.plugins.caller import Caller
from crdt_service.resolution.strategy import Strategy, Undecided, Verdict

__all__ = [
    "GROUP",
    "Caller",
    "Endpoint",
    "Hooks",
    "Refusal",
    "Reply",
    "Request",
    "Sibling",
    "Strategy",
    "Undecided",
    "Verdict",
    "hookimpl",
]

GROUP = "jarvis.plugins"
hookimpl = pluggy.HookimplMarker("jarvis")
_hookspec = pluggy.HookspecMarker("jarvis")


class Refusal(Exception):  # noqa: N818 - what a plugin says, and no error of its own.
    """The plugin refuses a write, or a request to its endpoint; the caller reads the message."""


class Request(msgspec.Struct, frozen=True):
    """A request to an endpoint.

    Attributes:
        query: The endpoint's parameters, as far as they are given.
        body: The decoded JSON body; None without.
        caller: Who asks, as the API knows it.
    """

    query: dict[str, str]
    body: Any
    caller: Caller


class Reply(msgspec.Struct, frozen=True):
    """What an endpoint answers.

    Attributes:
        body: Anything that JSON can hold, at most 1 MiB.
        status: HTTP status, 200 to 599.
    """

    body: Any
    status: int = 200


@dataclass(frozen=True)
class Endpoint:
    """One page below ``/v1/plugins/<name>/``.

    Attributes:
        method: GET, or one that carries a JSON body if it has one.
        path: What follows ``/v1/plugins/<name>/``: words of `a-z`, `0-9`, `_`, `-`, with slashes between.
        sentence: What it does, for people.
        answer: Does it; what it returns that is no `Reply` is the body of one with status 200.
        access: Who may call it.
        parameters: Query parameters that it takes, by name, with a sentence each.
        keys: Which of them name a key of the store. The API refuses a key that the caller may not touch, and a caller
            who is limited to prefixes has to give each of them.
        narrows: The answer, and what is done, keeps to keys that ``request.caller.may_touch``. An endpoint that neither
            names keys nor narrows is refused to callers who are limited to prefixes.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    sentence: str
    answer: Callable[[Request], Any]
    access: Literal["read", "write", "admin"] = "read"
    parameters: Mapping[str, str] | None = None
    keys: Sequence[str] = ()
    narrows: bool = False


class Hooks:
    """What a plugin may implement."""

    @_hookspec(firstresult=True)
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take the plugin's settings, once, before anything else. Raise to say what is wrong with them."""

    @_hookspec(firstresult=True)
    def validate_write(self, key: str, type_name: str, op: Any, caller: Caller) -> None:
        """Look at a write before it is done; raise `Refusal` and nothing of the request is done."""

    @_hookspec(firstresult=True)
    def transform_write(self, key: str, type_name: str, op: Any, caller: Caller) -> Any:
        """Return the operation that is done instead of `op`; None leaves it as it is."""

    @_hookspec(firstresult=True)
    def transform_read(self, key: str, type_name: str, value: Any) -> Any:
        """Return what is shown instead of `value`; None leaves it as it is."""

    @_hookspec(firstresult=True)
    def on_change(self, change: Mapping[str, Any]) -> None:
        """Learn of a change, as the change feed shows it."""

    @_hookspec(firstresult=True)
    def endpoints(self) -> Sequence[Endpoint]:
        """Return the pages that the plugin serves; asked once, after `configure`."""
        return ()

    @_hookspec(firstresult=True)
    def conflict_strategies(self) -> Mapping[str, Strategy]:
        """Return what can decide between siblings, by name; nodes ask once, after `configure`.

        A strategy gets the siblings in canonical order and the rule's `sources`. It must answer the same for the same.
        """
        return {}
