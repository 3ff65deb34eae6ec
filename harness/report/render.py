"""Puts a result on stdout: JSON or YAML for programs, coloured tables for a terminal, plain columns for a pipe."""

from enum import StrEnum

import msgspec
import yaml
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness.report.sheet import STYLE, Result, Sheet, Table, to_sheet


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def render(result: Result, form: Format, console: Console) -> None:
    """Write one result.

    Each JSON result is one line and each YAML result one document, so that a stream of them can be read one by one.
    """
    match form:
        case Format.JSON:
            _write(console, msgspec.json.encode(result).decode() + "\n")
        case Format.YAML:
            body = msgspec.to_builtins(result)
            _write(console, "---\n" + yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
        case Format.TABLE if console.is_terminal:
            _write_rich(console, to_sheet(result))
        case Format.TABLE:
            _write(console, _plain(to_sheet(result)))


def _write(console: Console, text: str) -> None:
    # Past rich, which would wrap and highlight what a program is going to read.
    console.file.write(text)
    console.file.flush()


def _plain(sheet: Sheet) -> str:
    width = max(len(name) for name, _ in sheet.facts) + 2
    blocks = ["".join(f"{name + ':':<{width}}{_line(value)}\n" for name, value in sheet.facts)]
    blocks += [_plain_table(table) for table in sheet.tables if table.rows]
    return "\n".join(blocks) + "\n"


def _plain_table(table: Table) -> str:
    rows = [table.headings, *(tuple(_line(cell) for cell in row) for row in table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headings))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def _write_rich(console: Console, sheet: Sheet) -> None:
    facts = RichTable.grid(padding=(0, 2))
    for name, value in sheet.facts:
        facts.add_row(Text(name, style="bold"), _styled(value))
    console.print(facts)
    for table in sheet.tables:
        if table.rows:
            grid = RichTable(*table.headings, box=None, pad_edge=False, header_style="bold", title_justify="left")
            for row in table.rows:
                grid.add_row(*(_styled(cell) for cell in row))
            console.print()
            console.print(grid)
    console.print()


def _styled(text: str) -> Text:
    return Text(text, style=STYLE.get(text, ""))
