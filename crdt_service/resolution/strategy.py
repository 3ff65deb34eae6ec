"""What can decide between siblings: pure functions of the sibling set, by name.

A strategy gets two or more siblings in canonical order, so that arrival and grouping cannot matter, and answers with
one of their values, or with one made of all; or it says why it cannot decide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from crdt_service.datatypes.mv_register import Sibling
from crdt_service.resolution.sibling import find_node, format_time


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a strategy decided.

    Attributes:
        text: The value, as canonical JSON.
        because: One sentence.
    """

    text: bytes
    because: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """Why a strategy cannot decide; the next rule that matches is asked.

    Attributes:
        because: One sentence.
    """

    because: str


# Siblings in canonical order, and the rule's sources.
Strategy = Callable[[Sequence[Sibling], Sequence[str]], Verdict | Undecided]
KEEP = "keep"
LWW = "lww"
PRIORITY = "priority"


def find_plugin(strategy: str) -> str:
    """Return the plugin that a strategy named ``PLUGIN.STRATEGY`` is of; empty for a built-in one."""
    return strategy.rpartition(".")[0]


def choose_latest(siblings: Sequence[Sibling], _sources: Sequence[str] = ()) -> Verdict:
    """The latest write, by stamp, then replica id, then bytes."""
    return Verdict(siblings[-1].text, f"the latest write, {_describe(siblings[-1])}")


def choose_first(siblings: Sequence[Sibling], _sources: Sequence[str] = ()) -> Verdict:
    """The earliest write, by stamp, then replica id, then bytes."""
    return Verdict(siblings[0].text, f"the first write, {_describe(siblings[0])}")


def choose_max(siblings: Sequence[Sibling], _sources: Sequence[str] = ()) -> Verdict | Undecided:
    """The highest number; of equal ones, such as 1 and 1.0, the latest."""
    return _choose_number(siblings, 1, "highest")


def choose_min(siblings: Sequence[Sibling], _sources: Sequence[str] = ()) -> Verdict | Undecided:
    """The lowest number; of equal ones, such as 1 and 1.0, the latest."""
    return _choose_number(siblings, -1, "lowest")


def unite(siblings: Sequence[Sibling], _sources: Sequence[str] = ()) -> Verdict | Undecided:
    """All elements of arrays, each once, in the siblings' order; or all members of objects, of equal names the latest.

    Elements are the same if their canonical JSON is: 1, 1.0 and true are three.
    """
    texts = [sibling.text for sibling in siblings]
    if all(text.startswith(b"[") for text in texts):
        elements = dict.fromkeys(bytes(element) for text in texts for element in _array.decode(text))
        return Verdict(b"[" + b",".join(elements) + b"]", f"all elements of {len(texts)} arrays, each once")
    if all(text.startswith(b"{") for text in texts):
        members = {name: value for text in texts for name, value in _object.decode(text).items()}
        return Verdict(_encoder.encode(members), f"all members of {len(texts)} objects, of equal names the latest")
    return Undecided("the siblings are neither all arrays nor all objects")


def choose_source(siblings: Sequence[Sibling], sources: Sequence[str]) -> Verdict | Undecided:
    """The write of the node that `sources` names first; of several of that node's, the latest."""
    for rank, source in enumerate(sources, 1):
        written = [sibling for sibling in siblings if find_node(sibling.replica) == source]
        if written:
            return Verdict(written[-1].text, f"{source} is source {rank} of {len(sources)}, {_describe(written[-1])}")
    return Undecided("no sibling comes from a node that sources names")


def keep(siblings: Sequence[Sibling], _sources: Sequence[str] = ()) -> Verdict:
    """All of them, as an array in canonical order."""
    text = b"[" + b",".join(sibling.text for sibling in siblings) + b"]"
    return Verdict(text, "all siblings are kept until a writer that has seen them assigns anew")


STRATEGIES: Mapping[str, Strategy] = {
    LWW: choose_latest,
    "first_writer": choose_first,
    "max": choose_max,
    "min": choose_min,
    "union": unite,
    PRIORITY: choose_source,
    KEEP: keep,
}
_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder(order="deterministic")


def _choose_number(siblings: Sequence[Sibling], sign: int, word: str) -> Verdict | Undecided:
    values = [msgspec.json.decode(sibling.text) for sibling in siblings]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return Undecided("not all siblings are numbers")
    _, best = max(zip(values, siblings, strict=True), key=lambda pair: (sign * pair[0], pair[1]))
    return Verdict(best.text, f"the {word} of {len(values)} numbers, {_describe(best)}")


def _describe(sibling: Sibling) -> str:
    return f"by {find_node(sibling.replica)} at {format_time(sibling.stamp)}"
