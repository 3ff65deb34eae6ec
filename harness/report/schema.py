"""The published JSON schemas of what the commands write with `--format json`."""

from pathlib import Path

import msgspec

from harness.checks.health import Health
from harness.release.removal import Removal
from harness.release.status import Status
from harness.report.sheet import Result

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schemas"

RESULT: dict[str, type[Result]] = {"deploy": Status, "status": Status, "health": Health, "cleanup": Removal}


def schema_of(command: str) -> str:
    """Return the JSON schema (draft 2020-12) of a command's result, as the text of its file."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"The result of `{command}`"}
    body = msgspec.json.schema(RESULT[command])
    return msgspec.json.format(msgspec.json.encode(head | body), indent=2).decode() + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for command in RESULT:
        (FOLDER / f"{command}.json").write_text(schema_of(command), encoding="utf-8")
