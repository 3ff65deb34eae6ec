"""Writes measured tables into a page of the documentation, between marks that name them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- measured: name -->`` and ``<!-- end -->``.

    Raises:
        ValueError: The page has no such marks.
    """
    pattern = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    changed, count = pattern.subn(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page.read_text())
    if count != 1:
        raise ValueError(f"{page} has {count} sections named {name}")
    page.write_text(changed)
