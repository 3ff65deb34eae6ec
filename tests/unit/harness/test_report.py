import io
import json

import jsonschema
import pytest
import yaml
from rich.console import Console

from harness.checks.check import overall_of
from harness.checks.health import Health, Target, check_health
from harness.release.record import read_record
from harness.release.removal import Removal
from harness.release.status import Status, read_status
from harness.report.render import Format, render
from harness.report.schema import FOLDER, RESULT, schema_of
from harness.report.sheet import Result
from tests.unit.harness.fake_api import FakeClock, deployed_api

ESCAPE = "\x1b["


def a_status() -> Status:
    kube = deployed_api().kube()
    record = read_record(kube, "jarvis-system")
    assert record is not None
    return read_status(kube, "jarvis-system", record)


def a_health() -> Health:
    clock = FakeClock()
    target = Target(deployed_api().kube(), "jarvis-system", clock, clock.sleep)
    rows = list(check_health(target))
    return Health(
        overall=overall_of(rows), time="2026-01-02T03:04:05Z", context="c", namespace="jarvis-system", checks=rows
    )


def a_removal() -> Removal:
    return Removal(deployment_id="jarvis-0123abcd", context="c", namespace="n", namespace_deleted=True, note="")


RESULTS = {"deploy": a_status, "status": a_status, "health": a_health, "cleanup": a_removal}


def write(result: Result, form: Format, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    render(result, form, Console(file=stream, force_terminal=terminal, width=200))
    return stream.getvalue()


@pytest.mark.parametrize("command", RESULT)
def test_the_published_schema_is_what_the_code_writes(command: str) -> None:
    assert (FOLDER / f"{command}.json").read_text() == schema_of(command), "run python -m harness.report.schema"


@pytest.mark.parametrize("command", RESULT)
def test_json_and_yaml_say_the_same_and_follow_the_schema(command: str) -> None:
    result = RESULTS[command]()
    text = write(result, Format.JSON)

    jsonschema.validate(json.loads(text), json.loads((FOLDER / f"{command}.json").read_text()))
    assert text.count("\n") == 1, "one line, so that a stream of results can be read line by line"
    assert yaml.safe_load(write(result, Format.YAML)) == json.loads(text)


def test_a_pipe_gets_plain_columns_on_single_lines() -> None:
    text = write(a_status(), Format.TABLE)

    assert ESCAPE not in text
    assert "deployment:    jarvis-0123abcd\n" in text
    assert "StatefulSet  jarvis-crdt     3/3    3/3\n" in text


def test_a_terminal_gets_colour() -> None:
    text = write(a_health(), Format.TABLE, terminal=True)

    assert "\x1b[32mhealthy" in text
    assert "CRDT synchronization" in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[32m" not in write(a_health(), Format.TABLE, terminal=True)


@pytest.mark.parametrize("form", list(Format))
def test_markup_in_a_message_is_text(form: Format) -> None:
    note = "[red]kept[/red] [/oops]"
    result = Removal(deployment_id="x", context="c", namespace="n", namespace_deleted=False, note=note)

    assert note in write(result, form, terminal=True)
