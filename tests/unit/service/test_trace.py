"""A trace goes from request to request: over channel and session, and into the commit that serves several."""

import asyncio
import contextlib
import itertools
from functools import partial

import pytest

from crdt_service.kernel.error import OutcomeUnknownError, ServiceError
from crdt_service.net.channel import Channel
from crdt_service.net.handshake import BACKEND, Identity
from crdt_service.net.session import Session
from crdt_service.telemetry.context import RequestContext, TraceContext, pack_trace, request
from crdt_service.telemetry.recorder import make_recorder
from crdt_service.telemetry.request import FORCED, FORCED_BY_ADDRESS, Requests
from crdt_service.telemetry.trace import LINKS_MAX, Kind, apart, current
from crdt_service.wire.message import (
    REQUEST_NAMES,
    ReadRequest,
    TracedRequest,
    ValueReply,
    WriteRequest,
    decode_received,
    decode_request,
    encode_message,
)
from tests.unit.service.test_channel import FakeWire, run
from tests.unit.service.test_commit import running

READ = partial(ReadRequest, key="k")
PARENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", True)
HEADERS = [(b"traceparent", f"00-{PARENT.trace_id}-{PARENT.span_id}-01".encode())]


class MemorySpan:
    def __init__(self, recorder, name, kind, parent, attributes, links=(), is_sampled=True):
        self.recorder, self.name, self.kind, self.parent = recorder, name, kind, parent
        self.attributes, self.links, self.error = dict(attributes), list(links), None
        trace_id = parent.trace_id if parent else "1" * 32
        self.context = TraceContext(trace_id, f"{next(recorder.ids):016x}", is_sampled)
        recorder.spans.append(self)

    def start(self, name, kind, attributes=(), links=()):
        return MemorySpan(self.recorder, name, kind, self.context, attributes, links)

    def rename(self, name):
        self.name = name

    def set(self, name, value):
        self.attributes[name] = value

    def end(self, error=""):
        assert self.error is None, "a span ends once"
        self.error = error


class MemoryRecorder:
    def __init__(self, is_sampled=True):
        self.spans, self.ids, self.is_sampled = [], itertools.count(1), is_sampled

    def start(self, name, parent, attributes=()):
        return MemorySpan(self, name, Kind.SERVER, parent, attributes, is_sampled=self.is_sampled)

    def close(self):
        pass


class FollowingRecorder(MemoryRecorder):
    """Samples what its caller samples."""

    def start(self, name, parent, attributes=()):
        return MemorySpan(self, name, Kind.SERVER, parent, attributes, is_sampled=parent.is_sampled)


@pytest.fixture
def recorder():
    return MemoryRecorder()


@contextlib.contextmanager
def within(span):
    token = current.set(span)
    yield
    current.reset(token)


def test_a_request_outside_of_a_trace_travels_as_it_is():
    async def act():
        wire = FakeWire()
        asking = asyncio.create_task(Channel("node-0", wire).request(READ))
        await asyncio.sleep(0)
        asking.cancel()
        return wire.sent

    assert [encode_message(READ(1))] == run(act())


def test_a_traced_request_carries_its_span_and_ends_with_the_reply(recorder):
    async def act():
        wire = FakeWire()
        channel = Channel("node-0", wire)
        root = recorder.start("root", PARENT)
        with within(root):
            asking = asyncio.create_task(channel.request(READ))
        await asyncio.sleep(0)
        traced = decode_received(wire.sent[0])
        [_, span] = recorder.spans
        assert ("read", Kind.CLIENT, root.context, "node-0") == (
            span.name,
            span.kind,
            span.parent,
            span.attributes["server.address"],
        )
        assert TracedRequest(pack_trace(span.context), encode_message(READ(1))) == traced
        assert span.error is None
        channel.receive(encode_message(ValueReply(decode_request(traced.request).id, "t", b"v")))
        await asking
        return span.error

    assert "" == run(act())


def test_a_traced_request_that_is_refused_lost_or_given_up_ends_with_why(recorder):
    async def act():
        channel = Channel("node-0", FakeWire())
        with within(recorder.start("root", PARENT)):
            refused, cancelled, lost = (asyncio.create_task(channel.request(READ)) for _ in range(3))
        await asyncio.sleep(0)
        session = Session(Identity(BACKEND, "b", ""), _refuse, _Back(channel), set())
        session.receive(encode_message(READ(1)))
        cancelled.cancel()
        await asyncio.sleep(0)
        channel.end()
        for task, kind in ((refused, ServiceError), (cancelled, asyncio.CancelledError), (lost, OutcomeUnknownError)):
            with pytest.raises(kind):
                await task
        return [span.error for span in recorder.spans[1:]]

    assert ["type_conflict", "cancelled", "outcome_unknown"] == run(act())


def test_what_hears_of_requests_gets_their_name_time_and_error():
    async def act():
        wire, heard = FakeWire(), []
        channel = Channel("node-0", wire, lambda *what: heard.append(what))
        asking = asyncio.create_task(channel.request(READ))
        await asyncio.sleep(0.5)
        assert "busy" == channel.state
        channel.receive(encode_message(ValueReply(1, "t", b"v")))
        await asking
        assert "idle" == channel.state
        channel.set_writable(is_writable=False)
        assert "full" == channel.state
        return heard

    assert [("read", 0.5, "")] == run(act())


def test_a_session_records_what_belongs_to_a_trace_and_its_work_knows(recorder):
    async def act():
        wire, seen, logged = FakeWire(), [], []

        async def later(_):
            seen.append(current.get())
            logged.append(request.get())
            await asyncio.sleep(1)
            raise ServiceError("syncing", "not yet", "retry")

        def answer(_, asked):
            seen.append(current.get())
            return later(asked) if isinstance(asked, WriteRequest) else ValueReply(asked.id, "t", b"v")

        session = Session(Identity(BACKEND, "b", ""), answer, wire, set(), recorder)
        trace = pack_trace(PARENT)
        session.receive(encode_message(TracedRequest(trace, encode_message(READ(1)))))
        session.receive(encode_message(TracedRequest(trace, encode_message(WriteRequest(2, "k", "t", b"")))))
        session.receive(encode_message(READ(3)))
        await asyncio.sleep(2)
        read, write = recorder.spans
        assert [read, write, None, write] == seen
        assert [("read", ""), ("write", "syncing")] == [(span.name, span.error) for span in (read, write)]
        assert {PARENT} == {span.parent for span in recorder.spans}
        assert [RequestContext("", PARENT.trace_id, write.context.span_id)] == logged
        assert (None, None) == (current.get(), request.get())
        return len(wire.sent)

    assert 3 == run(act())


@pytest.mark.parametrize("trace", [pack_trace(PARENT), bytes(24)])
def test_a_session_without_a_recorder_or_a_valid_trace_answers_all_the_same(trace):
    async def act():
        wire = FakeWire()
        recorder = None if any(trace) else MemoryRecorder()
        session = Session(
            Identity(BACKEND, "b", ""), lambda _, request: ValueReply(request.id, "t", b"v"), wire, set(), recorder
        )
        session.receive(encode_message(TracedRequest(trace, encode_message(READ(1)))))
        return wire.sent

    assert [encode_message(ValueReply(1, "t", b"v"))] == run(act())


async def test_one_commit_serves_several_writes_and_says_so(tmp_path, recorder):
    async with running(tmp_path) as replica:
        roots = [recorder.start(f"write {number}", PARENT) for number in range(LINKS_MAX + 2)]
        writes = []
        for root in roots:
            with within(root):
                writes.append(asyncio.create_task(replica.committer.write("k", "pn_counter", b'{"increment": 1}')))
        await asyncio.gather(*writes)
    commit, append = recorder.spans[len(roots) :]
    assert ("commit", Kind.INTERNAL, roots[0].context, len(roots), "") == (
        commit.name,
        commit.kind,
        commit.parent,
        commit.attributes["jarvis.items"],
        commit.error,
    )
    assert [root.context for root in roots[1 : 1 + LINKS_MAX]] == commit.links
    assert ("append", commit.context, "") == (append.name, append.parent, append.error)
    assert append.attributes["jarvis.bytes"] > 0


async def test_a_commit_that_the_disk_refuses_says_so(tmp_path, recorder):
    async with running(tmp_path) as replica:
        replica.disk.is_full = True
        with within(recorder.start("write", PARENT)), pytest.raises(ServiceError):
            await replica.committer.write("k", "pn_counter", b'{"increment": 1}')
    assert ["storage_full"] == [span.error for span in recorder.spans if span.name == "append"]


def _in_a_task(function):
    async def act():
        return await asyncio.create_task(_call(function))

    return asyncio.run(act())


async def _call(function):
    return function()


def test_a_request_of_the_api_is_a_span_with_its_route_and_status(recorder):
    def act():
        served = Requests(recorder).begin("GET", "r-1", HEADERS)
        seen = current.get(), request.get()
        served.end("/v1/keys/{key}", 200, 0.1)
        return seen

    span, context = _in_a_task(act)
    assert [span] == recorder.spans
    assert (PARENT, "GET /v1/keys/{key}", "") == (span.parent, span.name, span.error)
    assert RequestContext("r-1", PARENT.trace_id, span.context.span_id) == context
    assert {
        "http.request.method": "GET",
        "http.route": "/v1/keys/{key}",
        "http.response.status_code": 200,
        "jarvis.request_id": "r-1",
    } == span.attributes


def test_what_a_request_starts_may_belong_to_none(recorder):
    def act():
        Requests(recorder).begin("GET", "r-1", HEADERS)
        return apart().run(lambda: (current.get(), request.get()))

    assert (None, None) == _in_a_task(act)


def test_what_goes_on_after_the_answer_is_not_traced(recorder):
    def act():
        Requests(recorder).begin("GET", "r-1", HEADERS).end("/v1/changes", 200, 0.1)
        return current.get(), request.get().request_id

    assert (None, "r-1") == _in_a_task(act)


@pytest.mark.parametrize(("status", "error"), [(404, ""), (503, "no_node")])
def test_only_failures_of_the_server_fail_the_span(recorder, status, error):
    _in_a_task(lambda: Requests(recorder).begin("GET", "r-1", []).end("other", status, 0.1, "no_node"))

    [span] = recorder.spans
    assert (error, "no_node") == (span.error, span.attributes["jarvis.error_code"])


def test_a_request_that_is_not_sampled_has_ids_in_the_log_and_no_more():
    def act():
        served = Requests(MemoryRecorder(is_sampled=False)).begin("GET", "r-1", HEADERS)
        return served.span, current.get(), request.get()

    assert (None, None, RequestContext("r-1", PARENT.trace_id, f"{1:016x}")) == _in_a_task(act)


def test_without_a_recorder_the_log_has_the_callers_trace():
    def act():
        Requests(None).begin("GET", "r-1", HEADERS)
        return current.get(), request.get()

    assert (None, RequestContext("r-1", PARENT.trace_id, PARENT.span_id)) == _in_a_task(act)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_nothing_is_recorded_unless_a_collector_is_named(variables):
    assert make_recorder(variables, service="s", instance="i", version="v") is None


def test_every_kind_of_request_has_a_name_of_its_own():
    assert len(REQUEST_NAMES) == len(set(REQUEST_NAMES.values()))
    assert ("read", "indirect_ping") == (REQUEST_NAMES[ReadRequest], _named("IndirectPingRequest"))


def _named(kind):
    return next(name for each, name in REQUEST_NAMES.items() if each.__name__ == kind)


def _refuse(_, request):
    raise ServiceError("type_conflict", "no", "do not")


class _Back(FakeWire):
    """Carries replies to a channel."""

    def __init__(self, channel):
        super().__init__()
        self.send = channel.receive


def test_callers_have_only_so_many_requests_traced_and_each_address_has_a_share():
    requests = Requests(FollowingRecorder(), lambda: 0.0)

    def traced(address, count):
        spans = [_in_a_task(lambda: requests.begin("GET", "r-1", HEADERS, address).span) for _ in range(count)]
        return len(spans) - spans.count(None)

    assert FORCED_BY_ADDRESS.burst_limit == traced("a", FORCED_BY_ADDRESS.burst_limit + 50)
    assert FORCED.burst_limit - FORCED_BY_ADDRESS.burst_limit == sum(traced(f"b{number}", 20) for number in range(50))
