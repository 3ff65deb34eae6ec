"""Clients of one backend see what was written and what was read through it; elements are added once and never again."""

from itertools import groupby

_CHANGES = ("remove", "clear")


def judge(done, twice):
    """Return findings by promise.

    Args:
        done: What clients did, of each backend and key.
        twice: Elements that may have been added on two nodes, of which one may come late: they are left out.
    """
    findings = {"read_your_writes": None, "monotonic_reads": None}
    ordered = sorted(done, key=lambda each: (each.key, each.backend, each.sent))
    for (key, backend), group in groupby(ordered, key=lambda each: (each.key, each.backend)):
        own = list(group)
        gone = [each for each in done if each.key == key and each.verb in _CHANGES and each.outcome != "refused"]
        reads = [each for each in own if each.shown is not None]
        for read in reads:
            for name, find in (("read_your_writes", _find_write), ("monotonic_reads", _find_read)):
                element = find(read, own, gone, twice)
                if element and not findings[name]:
                    findings[name] = f"{backend} {read.verb} {key} at {read.sent:.3f}: {element}"
    return findings


def _find_write(read, own, gone, twice):
    for write in own:
        if write.verb == "read" or write.outcome != "acknowledged" or not write.answered < read.sent:
            continue
        if write.verb == "add":
            if write.element not in read.shown and not _may_be_gone(write.element, read, gone):
                return f"own {write.element} is missing"
            continue
        for element in read.shown - twice:
            if (write.verb == "clear" or element == write.element) and _is_known(element, write, own):
                return f"{element} is back after own {write.verb}"
    return None


def _find_read(read, own, gone, twice):
    before = [each for each in own if each.shown is not None and each.answered < read.sent]
    for earlier in before:
        for element in sorted(earlier.shown - read.shown):
            if not _may_be_gone(element, read, gone):
                return f"{element} is missing, which was shown at {earlier.sent:.3f}"
        for first in before:
            if first.answered < earlier.sent:
                back = (first.shown - earlier.shown) & read.shown - twice
                if back:
                    return f"{sorted(back)} came back, which had gone by {earlier.sent:.3f}"
    return None


def _is_known(element, write, own):
    """Tell whether a removal was sent by who had added the element or seen it."""
    return any(each.answered < write.sent and (_has_added(each, element) or _shows(each, element)) for each in own)


def _has_added(each, element):
    return each.verb == "add" and each.element == element and each.outcome == "acknowledged"


def _shows(each, element):
    return each.shown is not None and element in each.shown


def _may_be_gone(element, read, gone):
    return any(each.sent <= read.answered and (each.verb == "clear" or each.element == element) for each in gone)
