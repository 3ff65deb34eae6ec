"""Reads a configuration file and says everything that is wrong with it: where, what, what is allowed.

The file is the chart's values. YAML is composed to nodes first, because only nodes know their line and column.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from harness.failure import Failure
from harness.spec.generate import render_template
from harness.spec.rule import Violation, judge
from harness.spec.scalar import ScalarError, read_scalar
from harness.spec.schema import Node, allowed, defaults, read_schema, walk

__all__ = ["Config", "ConfigError", "Problem", "read_config", "render_template"]

_FILE_BYTES_MAX: Final = 1 << 20
_DEPTH_MAX: Final = 50
_EVENTS_MAX: Final = 100_000
_TEXT: Final = "tag:yaml.org,2002:str"
# Of a plain scalar, whatever it means.
_PLAIN: Final = "plain"
_MESSAGES: Final = {
    "enum": "not one of the values that are allowed",
    "minimum": "too small",
    "maximum": "too large",
    "pattern": "not of the form that is needed",
    "minItems": "too short a list",
    "maxItems": "too long a list",
    "uniqueItems": "a value stands in the list twice",
    "minLength": "must not be empty",
    "maxLength": "too long",
}
_MERGE: Final = "<<"
_WRITE_ONE: Final = "python deployment_cli.py template cluster-config.yaml writes a complete one"

Path_ = tuple[str | int, ...]
# Marks of values, and under (…, _KEY) of their keys; no name or index is -1. PyYAML's C parser has a Mark of its own.
Mark = Any
Marks = dict[Path_, Mark]
_KEY: Final = -1


def _judge_pattern(_validator: object, pattern: str, value: object, _node: object) -> Iterator[ValidationError]:
    # Python's `$` lets a newline at the end through, helm's does not; every pattern here is anchored.
    if isinstance(value, str) and not re.fullmatch(pattern.removesuffix("$"), value):
        yield ValidationError("does not match")


# The stubs leave `extend` without types.
_Validator: Final = validators.extend(Draft202012Validator, {"pattern": _judge_pattern})  # type: ignore[no-untyped-call]


class _Loader(yaml.SafeLoader):
    """Composes YAML to nodes, of which it tells plain scalars from text; what they mean is for `read_scalar`."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """Return the tag of a node."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration file.

    Attributes:
        file: The file as it was named.
        line: From 1; 0 for the file as a whole.
        column: From 1; 0 for the file as a whole.
        path: Dotted path of the key; empty for the file as a whole.
        value: What stands there.
        message: What is wrong with it.
        allowed: What may stand there.
        suggestion: What was probably meant.
    """

    file: str
    line: int
    column: int
    path: str
    value: object
    message: str
    allowed: str = ""
    suggestion: str = ""


class ConfigError(Failure):
    """A configuration file cannot be used; carries every problem in it, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(
            "\n".join(f"{p.file}:{p.line}:{p.column}: {p.path}: {p.message}" for p in problems), _WRITE_ONE
        )
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration.

    Attributes:
        values: Every key, with the defaults where the file says nothing.
        overrides: What the file says, and no more.
        source: The file as it was named.
        warnings: Sentences about keys that are set and have no effect yet.
    """

    values: dict[str, Any]
    overrides: dict[str, Any]
    source: str
    warnings: tuple[str, ...]


def read_config(path: Path) -> Config:
    """Read and judge a configuration file.

    Raises:
        ConfigError: It cannot be read, is not YAML, or breaks the schema or a rule across keys.
    """
    source = str(path)
    root = _compose(_read_text(path), source)
    marks: Marks = {}
    problems = [Problem(source, line, column, "", "", message) for (line, column), message in _judge_nodes(root, marks)]
    if problems:
        raise ConfigError(tuple(problems))
    overrides = _to_value(root)
    if not isinstance(overrides, dict):
        raise ConfigError((Problem(source, 1, 1, "", "", "not a mapping of keys to values", "infrastructure: …"),))
    errors = _Validator(read_schema()).iter_errors(overrides)
    problems = [problem for error in errors for problem in _explain(error, marks, source)]
    values = _merge(defaults(), overrides)
    if not problems:
        problems = [_explain_rule(violation, marks, source) for violation in judge(values)]
    if problems:
        raise ConfigError(tuple(sorted(problems, key=lambda problem: (problem.line, problem.column))))
    return Config(values, overrides, source, tuple(_warnings(overrides)))


def _read_text(path: Path) -> str:
    def refused(message: str) -> ConfigError:
        return ConfigError((Problem(str(path), 0, 0, "", "", message, _WRITE_ONE),))

    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise refused(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _FILE_BYTES_MAX:
        raise refused("larger than 1 MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(f"not UTF-8 text: byte {error.start} cannot be decoded") from None
    if not text.strip():
        raise refused("there is nothing in it")
    return text


def _compose(text: str, source: str) -> yaml.Node:
    try:
        _judge_events(text, source)
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError((_unreadable(source, error),)) from None
    if root is None:
        raise ConfigError((Problem(source, 0, 0, "", "", "there is nothing in it", _WRITE_ONE),))
    return root


def _judge_events(text: str, source: str) -> None:
    """Refuse what could grow without bound, before anything is built from it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        message = ""
        if getattr(event, "tag", None) is not None:
            message = "tags are not accepted: write the value without"
        elif isinstance(event, yaml.AliasEvent):
            message = "aliases are not accepted: write the value out"
        elif depth > _DEPTH_MAX:
            message = f"nested more than {_DEPTH_MAX} deep"
        elif count > _EVENTS_MAX:
            message = "too long"
        if message:
            raise ConfigError((Problem(source, *_place(event.start_mark), "", "", message),))


def _place(mark: Mark | None) -> tuple[int, int]:
    """Line and column as people count them; 0 and 0 for no place."""
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _unreadable(source: str, error: Exception) -> Problem:
    line, column = _place(getattr(error, "problem_mark", None))
    return Problem(source, line, column, "", "", f"not valid YAML: {getattr(error, 'problem', None) or error}")


def _judge_nodes(node: yaml.Node, marks: Marks, path: Path_ = ()) -> Iterator[tuple[tuple[int, int], str]]:
    """Note where each value begins; yield values that Helm could not keep, keys that are no text or stand twice."""
    marks.setdefault(path, node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        if message := _judge_scalar(node):
            yield _place(node.start_mark), message
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _judge_nodes(child, marks, (*path, index))
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            place = _place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode) or key.value == _MERGE or _judge_scalar(key):
                yield place, "a key must be plain text"
                continue
            if not isinstance(_to_value(key), str):
                yield place, f"a key must be plain text, and {key.value or 'an empty one'} is none: put it in quotes"
                continue
            below = (*path, key.value)
            if below in marks:
                yield place, f"{'.'.join(map(str, below))} is written twice; line {marks[below].line + 1} has the first"
                continue
            # Scalars are pointed at themselves; what spans lines, at its key.
            marks[below] = child.start_mark if isinstance(child, yaml.ScalarNode) else key.start_mark
            marks[(*below, _KEY)] = key.start_mark
            yield from _judge_nodes(child, marks, below)


def _judge_scalar(node: yaml.ScalarNode) -> str:
    """Return what is wrong with a scalar; empty for nothing."""
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        return "half of a character that is written as two escapes: write the character itself"
    try:
        _to_value(node)
    except ScalarError as error:
        return str(error)
    return ""


def _to_value(node: yaml.Node) -> Any:
    """Return what Helm makes of a node."""
    if isinstance(node, yaml.MappingNode):
        return {_to_value(key): _to_value(child) for key, child in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_to_value(child) for child in node.value]
    return read_scalar(node.value) if node.tag == _PLAIN else node.value


def _find(marks: Marks, path: Path_) -> tuple[int, int]:
    """The place of `path`, or of the nearest key above it that the file has."""
    return _place(next(marks[path[:end]] for end in range(len(path), -1, -1) if path[:end] in marks))


def _explain(error: ValidationError, marks: Marks, source: str) -> Iterator[Problem]:
    path: Path_ = tuple(error.absolute_path)
    node: Node = error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator == "additionalProperties":
        yield from _explain_unknown(
            path, cast(Mapping[str, Any], error.instance), list(node["properties"]), marks, source
        )
        return
    choices = [str(choice) for choice in node.get("enum", node.get("examples", []))]
    near = difflib.get_close_matches(str(error.instance), choices, 1, 0.5)
    value = error.instance if isinstance(error.instance, str) else json.dumps(error.instance, default=str)
    message = _MESSAGES.get(str(error.validator), error.message)
    if error.validator == "type":
        message = f"not {_type_name(node['type'])}"
    dotted = ".".join(map(str, path))
    yield Problem(source, *_find(marks, path), dotted, value, message, allowed(node), near[0] if near else "")


def _explain_unknown(
    path: Path_, mapping: Mapping[str, Any], known: list[str], marks: Marks, source: str
) -> Iterator[Problem]:
    for name in mapping.keys() - set(known):
        close = difflib.get_close_matches(name, known, 1)
        dotted = ".".join(map(str, (*path, name)))
        place = _place(marks[*path, name, _KEY])
        yield Problem(source, *place, dotted, "", "unknown key", ", ".join(known), close[0] if close else "")


def _explain_rule(violation: Violation, marks: Marks, source: str) -> Problem:
    # Where the file says nothing of the key itself, what bounds it is what was written.
    path, bound = violation.path, violation.bound
    place = _find(marks, bound if bound in marks and path not in marks else path)
    value = violation.value if isinstance(violation.value, str) else json.dumps(violation.value)
    return Problem(source, *place, ".".join(map(str, path)), value, violation.message, violation.remedy)


def _type_name(kind: object) -> str:
    names = {"integer": "a whole number", "string": "text", "boolean": "true or false", "object": "a mapping"}
    first = kind[0] if isinstance(kind, list) else kind
    return names.get(str(first), "a list")


def _merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _warnings(overrides: Mapping[str, Any]) -> Iterator[str]:
    for key in walk():
        if key.planned and key.is_leaf:
            value: Any = overrides
            for name in key.path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value not in (None, False):
                yield f"{key.dotted} is accepted and has no effect yet"
