"""Values below a prefix have the shape that the settings ask for.

Settings, by prefix: ``{"orders/": {"required": ["id"], "bytes_max": 1024, "defaults": {"state": "new"}}}``. What is
assigned below the prefix must be an object with the required members and of that size at most; members that it lacks
get their defaults. Readers see how many members there are as ``_members``. ``GET /v1/plugins/shapes/rules`` shows the
settings, ``GET /v1/plugins/shapes/seen`` how many changes this backend saw below each prefix. A conflict rule may name
the strategy ``shapes.fullest``.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from crdt_service.plugins.hook import (
    Endpoint,
    Refusal,
    Request,
    Sibling,
    Strategy,
    Undecided,
    Verdict,
    hookimpl,
)

_rules: dict[str, dict[str, Any]] = {}
_seen: Counter[str] = Counter()


@hookimpl
def configure(settings: Mapping[str, Any]) -> None:
    """Take the rules."""
    _rules.clear()
    _seen.clear()
    for prefix, rule in settings.items():
        if unknown := rule.keys() - {"required", "bytes_max", "defaults"}:
            raise ValueError(f"{prefix}: unknown {', '.join(sorted(unknown))}")
        _rules[prefix] = {"required": [], "bytes_max": 1 << 20, "defaults": {}, **rule}


@hookimpl
def validate_write(key: str, op: Any) -> None:
    """Refuse what is not of the shape."""
    rule = _find(key)
    if rule is None or not isinstance(op, dict) or "assign" not in op:
        return
    value = op["assign"]
    if not isinstance(value, dict):
        raise Refusal(f"{key}: the value is no object")
    if missing := [name for name in rule["required"] if name not in value]:
        raise Refusal(f"{key}: the value lacks {', '.join(missing)}")
    if len(json.dumps(value)) > rule["bytes_max"]:
        raise Refusal(f"{key}: the value is larger than {rule['bytes_max']} bytes")


@hookimpl
def transform_write(key: str, op: Any) -> Any:
    """Fill in defaults."""
    rule = _find(key)
    if rule is None or not isinstance(op, dict) or "assign" not in op:
        return None
    return {**op, "assign": {**rule["defaults"], **op["assign"]}}


@hookimpl
def transform_read(key: str, value: Any) -> Any:
    """Show how many members there are."""
    return {**value, "_members": len(value)} if _find(key) is not None and isinstance(value, dict) else None


@hookimpl
def on_change(change: Mapping[str, Any]) -> None:
    """Count changes."""
    _seen.update(prefix for prefix in _rules if str(change.get("key", "")).startswith(prefix))


@hookimpl
def endpoints() -> list[Endpoint]:
    """Serve the rules and the counts, of prefixes that are the caller's."""
    return [
        Endpoint(
            "GET",
            "rules",
            "Show the rules by prefix.",
            _show_rules,
            parameters={"prefix": "Of this prefix alone."},
            narrows=True,
        ),
        Endpoint("GET", "seen", "Show how many changes were seen below each prefix.", _show_seen, narrows=True),
    ]


@hookimpl
def conflict_strategies() -> dict[str, Strategy]:
    """Decide for the fullest object."""
    return {"fullest": choose_fullest}


def choose_fullest(siblings: Sequence[Sibling], _sources: Sequence[str]) -> Verdict | Undecided:
    """The object with the most members; of equal ones the latest."""
    values = [json.loads(sibling.text) for sibling in siblings]
    if not all(isinstance(value, dict) for value in values):
        return Undecided("not all siblings are objects")
    best = max(range(len(values)), key=lambda place: (len(values[place]), place))
    return Verdict(siblings[best].text, f"the most members, {len(values[best])}")


def _show_rules(request: Request) -> Any:
    prefix = request.query.get("prefix")
    return {
        known: rule for known, rule in _rules.items() if prefix in (None, known) and request.caller.may_touch(known)
    }


def _show_seen(request: Request) -> Any:
    return {prefix: count for prefix, count in _seen.items() if request.caller.may_touch(prefix)}


def _find(key: str) -> dict[str, Any] | None:
    return next((rule for prefix, rule in _rules.items() if key.startswith(prefix)), None)
