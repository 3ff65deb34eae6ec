"""Log lines as people and machines read them."""

import io
import json
import logging
import re
import sys
import warnings

import pytest

from crdt_service.telemetry.context import RequestContext, request
from crdt_service.telemetry.log import FIELDS, configure_logging
from crdt_service.telemetry.request import LINES_PER_SECOND_MAX, Requests

PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
def configure():
    """Log to memory as an environment asks for; afterwards all is as before."""
    root = logging.getLogger()
    before, level, hook = root.handlers[:], root.level, sys.excepthook
    root.handlers[:] = []  # Or those of pytest would be closed.

    def start(environment, stream=None):
        stream = stream or io.StringIO()
        configure_logging(environment, "node-1", stream)
        return stream

    yield start
    logging.captureWarnings(False)
    root.handlers[:], sys.excepthook = before, hook
    root.setLevel(level)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_line_is_json_with_time_level_logger_message_and_node(configure, environment):
    stream = configure(environment)

    logging.getLogger("some.where").warning("%d of %s", 3, "é\ud800\n")

    [line] = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line.pop("time"))
    assert {"level": "warning", "logger": "some.where", "message": "3 of é\\ud800\n", "node": "node-1"} == line


@pytest.mark.parametrize(("environment", "count"), [("development", 2), ("staging", 1), ("production", 1)])
def test_the_environment_decides_the_level(configure, environment, count):
    stream = configure(environment)

    logging.getLogger("some.where").debug("detail")
    logging.getLogger("some.where").info("news")

    assert count == len(stream.getvalue().splitlines())


def test_an_exception_is_a_field(configure):
    stream = configure("production")

    try:
        raise ValueError("what happened")
    except ValueError:
        logging.getLogger("x").exception("failed")

    [line] = lines(stream)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: what happened")


def test_warnings_and_unhandled_exceptions_are_lines_too(configure):
    stream = configure("production")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", stacklevel=1)
    sys.excepthook(ValueError, ValueError("lost"), None)

    assert [("warning", "py.warnings"), ("critical", "crdt_service.telemetry.log")] == [
        (line["level"], line["logger"]) for line in lines(stream)
    ]


def test_lines_of_a_request_carry_its_ids(configure):
    stream = configure("production")

    token = request.set(RequestContext("r-1", "0af7", ""))
    logging.getLogger("x").info("inside", extra={FIELDS: {"route": "/v1", "seconds": 0.5}})
    request.reset(token)
    logging.getLogger("x").info("outside")

    inside, outside = lines(stream)
    assert {"request_id": "r-1", "trace_id": "0af7", "route": "/v1", "seconds": 0.5}.items() <= inside.items()
    assert {"time", "level", "logger", "message", "node"} == outside.keys()


def test_text_is_one_line_whatever_is_in_the_message(configure):
    stream = configure("development")

    logging.getLogger("crdt_service.node").error("key %s", "a\nb\x1b[31m", extra={FIELDS: {"route": "/\r"}})

    [line] = stream.getvalue().splitlines()
    assert line.endswith("Z ERROR    node key a\\x0ab\\x1b[31m route=/\\x0d")


def test_only_a_terminal_gets_colours(configure):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = configure("development", Terminal())
    logging.getLogger("x").error("one")
    assert "\x1b[31mERROR" in terminal.getvalue()

    file = configure("development")
    logging.getLogger("x").error("two")
    assert "\x1b" not in file.getvalue()


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


def test_each_answer_has_a_line(configure):
    stream = configure("production")

    served = Requests(None).begin("POST", "r-1", [PARENT])
    served.end("/v1/keys/{key}", 200, 0.0012345678)

    [line] = lines(stream)
    assert {
        "logger": "jarvis.access",
        "level": "info",
        "request_id": "r-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "method": "POST",
        "route": "/v1/keys/{key}",
        "status": 200,
        "seconds": 0.001235,
    }.items() <= line.items()
    request.set(None)


def test_probes_are_detail_and_failures_are_warnings(configure):
    stream = configure("production")
    requests = Requests(None)

    requests.write_line("GET", "/ready", 200, 0.1)
    requests.write_line("GET", "/v1/cluster", 503, 0.1)

    assert [("/v1/cluster", "warning")] == [(line["route"], line["level"]) for line in lines(stream)]


def test_many_answers_in_a_second_are_counted_not_listed_and_hide_no_failure(configure):
    stream = configure("production")
    clock = Clock()
    requests = Requests(None, clock)

    for _ in range(LINES_PER_SECOND_MAX + 7):
        requests.write_line("GET", "/v1/cluster", 200, 0.1)
    requests.write_line("GET", "/v1/cluster", 500, 0.1)
    clock.seconds += 1
    for _ in range(2):
        requests.write_line("GET", "/v1/cluster", 200, 0.1)

    *first, failed, later, last = lines(stream)
    assert LINES_PER_SECOND_MAX == len(first)
    assert [500, 200, 200] == [line["status"] for line in (failed, later, last)]
    assert [None, 7, None] == [line.get("left_out") for line in (failed, later, last)]
