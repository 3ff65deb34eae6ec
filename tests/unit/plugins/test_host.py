import asyncio
from pathlib import Path

import pytest

from crdt_service.kernel.config import read_plugins
from crdt_service.kernel.error import ServiceError
from crdt_service.plugins.caller import Caller
from crdt_service.plugins.host import Plugins
from crdt_service.plugins.message import Serve, Value, Write
from tests.unit.plugins.conftest import states, wait_for

ALICE = Caller("alice", "planner", "write", ("price/",))
WRITE = Write("price/apple", "pn_counter", b'{"increment":3}')
VALUE = Value("price/apple", "pn_counter", b"3")
DOUBLE = """
@hookimpl
def transform_write(op):
    return {"increment": op["increment"] * 2}

@hookimpl
def transform_read(value):
    return {"doubled": value}
"""
ADD = """
@hookimpl
def transform_write(op):
    return {"increment": op["increment"] + 1}

@hookimpl
def transform_read(value):
    return {"added": value}
"""
SMALL = """
_largest = 0

@hookimpl
def configure(settings):
    global _largest
    _largest = settings["largest"]

@hookimpl
def validate_write(key, type_name, op, caller):
    if op["increment"] > _largest:
        raise Refusal(f"{caller} may not add {op['increment']} to {key}")
"""
RAISES = """
@hookimpl
def validate_write(op):
    raise ValueError("no good")
"""
HANGS = """
@hookimpl
def validate_write(op):
    while True:
        time.sleep(0.01)
"""
DIES = """
@hookimpl
def validate_write(op):
    os._exit(3)
"""
LEAKS = """
_leak = []

@hookimpl
def validate_write(op):
    _leak.append(bytearray(64 << 20))
"""
BROKEN = "raise RuntimeError('cannot be loaded')\n"


async def refusal(plugins: Plugins) -> tuple[str, str]:
    with pytest.raises(ServiceError) as refused:
        await plugins.pass_write(WRITE.key, WRITE.type_name, WRITE.op, ALICE)
    return refused.value.code, refused.value.message


async def test_without_plugins_nothing_is_to_be_passed():
    plugins = Plugins(read_plugins(None))

    assert (False, False, []) == (plugins.passes_writes, plugins.passes_values, plugins.views())


async def test_plugins_change_writes_in_their_order_and_values_in_reverse(rig):
    rig.add("double", DOUBLE)
    rig.add("add", ADD)

    async with rig.run() as plugins:
        (write,) = await plugins.pass_writes([WRITE], Caller())
        (value,) = await plugins.pass_values([VALUE])

    assert b'{"increment":7}' == write.op
    assert b'{"doubled":{"added":3}}' == value.text


async def test_a_validator_sees_what_the_plugins_before_it_made_and_refuses_what_it_must(rig):
    rig.add("double", DOUBLE)
    rig.add("small", SMALL, settings={"largest": 6})
    rig.add("add", ADD)
    beyond = Write("price/pear", "pn_counter", b'{"increment":4}')

    async with rig.run() as plugins:
        first, refused, last = await plugins.pass_writes([WRITE, beyond, WRITE], ALICE)
        with pytest.raises(ServiceError):
            await plugins.pass_write(beyond.key, beyond.type_name, beyond.op, ALICE)

        assert ["active"] * 3 == states(plugins)
    assert [b'{"increment":7}'] * 2 == [first.op, last.op]
    assert ("plugin_refused", "plugin small: alice may not add 8 to price/pear") == (refused.code, refused.message)
    assert [] == rig.failures


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (RAISES, "ValueError: no good"),
        (HANGS, "no answer within 200 ms"),
        (DIES, "its process ended"),
        (LEAKS, "MemoryError: the plugin takes more than its memory_mib"),
    ],
    ids=["raises", "hangs", "dies", "leaks"],
)
@pytest.mark.parametrize("required", [False, True])
async def test_a_plugin_that_fails_is_disabled_and_requests_go_on(rig, source, says, required):
    rig.add("bad", source, required=required, timeout_ms=200 if source == HANGS else 10_000)
    rig.add("double", DOUBLE)
    outcomes = set()

    async with rig.run() as plugins:
        while states(plugins)[0] != "disabled":
            try:
                (write,) = await plugins.pass_writes([WRITE], Caller())
                outcomes.add(write.op)
            except ServiceError as error:
                outcomes.add(error.code)
            await asyncio.sleep(0.001)  # Its process starts anew meanwhile.
        bad, double = plugins.views()

    unmet = {"plugin_unavailable"} if required else set()
    assert unmet == outcomes - {b'{"increment":6}'}
    assert (required and source != LEAKS) or b'{"increment":6}' in outcomes
    assert (says, "active") == (bad.error, double.state)
    assert ["bad"] * 5 == rig.failures


async def test_while_a_plugin_hangs_the_loop_and_other_plugins_answer(rig):
    rig.add("hangs", HANGS.replace("validate_write(op)", "transform_read(value)"), timeout_ms=300)
    rig.add("double", DOUBLE.partition("@hookimpl\ndef transform_read")[0])

    async with rig.run() as plugins:
        hanging = asyncio.create_task(plugins.pass_values([VALUE]))
        await asyncio.sleep(0)
        answered = 0
        while not hanging.done():
            await plugins.pass_writes([WRITE], Caller())
            answered += 1

        assert [VALUE] == await hanging
    assert answered > 10


async def test_a_disabled_plugin_is_tried_again(rig):
    flag = rig.directory / "mended"
    rig.add("bad", f"@hookimpl\ndef validate_write(op):\n    assert os.path.exists({str(flag)!r})\n", required=True)

    async with rig.run() as plugins:
        while states(plugins) != ["disabled"]:
            assert "plugin_unavailable" == (await refusal(plugins))[0]
        flag.touch()
        await wait_for(lambda: states(plugins) == ["failing"], "the plugin to be tried again")
        await wait_for(lambda: len(rig.ready) == 2, "its process to start")

        assert [WRITE] == await plugins.pass_writes([WRITE], Caller())
        assert ["active"] == states(plugins)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (BROKEN, "RuntimeError: cannot be loaded"),
        ("", "TypeError: the plugin implements no hook"),
        ("@hookimpl\ndef validate_reads(key):\n    pass\n", "unknown hook"),
        ("@hookimpl\ndef validate_write(colour):\n    pass\n", "colour"),
        (SMALL, "KeyError: 'largest'"),
        ("@hookimpl\ndef endpoints():\n    return [Endpoint('GET', '../x', 'Escape.', print)]\n", "matching regex"),
    ],
)
async def test_a_plugin_that_cannot_be_loaded_says_why(rig, source, says):
    rig.add("bad", source)

    async with rig.run() as plugins:
        assert [WRITE] == await plugins.pass_writes([WRITE], Caller())
        view = plugins.views()[0]

    assert view.state in {"failing", "disabled"}
    assert says in view.error


async def test_a_required_plugin_that_was_never_loaded_stops_reads_and_writes(rig):
    rig.add("bad", BROKEN, required=True)

    async with rig.run() as plugins:
        assert (True, True) == (plugins.passes_writes, plugins.passes_values)
        assert "plugin_unavailable" == (await refusal(plugins))[0]
        with pytest.raises(ServiceError) as refused:
            await plugins.pass_values([VALUE])

    assert "plugin_unavailable" == refused.value.code


async def test_requests_beyond_what_may_wait_are_refused_not_let_through(rig):
    rig.add("slow", "@hookimpl\ndef validate_write(op):\n    time.sleep(0.5)\n")

    async with rig.run() as plugins:
        calls = [asyncio.create_task(plugins.pass_writes([WRITE], Caller())) for _ in range(300)]
        await asyncio.sleep(0)
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        refused = [task.exception().code for task in done if task.exception()]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    assert ["plugin_unavailable"] * 44 == refused
    assert [] == rig.failures


async def test_endpoints_answer_refuse_and_fail(rig):
    rig.add(
        "pages",
        """
@hookimpl
def endpoints():
    return [
        Endpoint("GET", "greet", "Greet.", greet, parameters={"name": "Who."}),
        Endpoint("POST", "teapot/fill", "Fill.", lambda request: Reply(request.body, 418), "admin"),
        Endpoint("GET", "closed", "Refuse.", closed),
        Endpoint("GET", "broken", "Fail.", lambda request: 1 / 0),
    ]

def greet(request):
    return {"hello": request.query["name"]}

def closed(request):
    raise Refusal("closed")
""",
    )

    async with rig.run() as plugins:
        plugin = plugins._plugins[0]

        async def serve(method: str, path: str, body: bytes = b"", **query: str):
            try:
                served = await plugins.serve(plugin, Serve(method, path, query, body, Caller()))
            except ServiceError as error:
                return error.code, error.message
            return served.status, served.body

        assert ["read", "admin", "read", "read"] == [page.access for page in plugin.pages()]
        assert (200, b'{"hello":"bob"}') == await serve("GET", "greet", name="bob")
        assert (418, b"[1]") == await serve("POST", "teapot/fill", b"[1]")
        assert ("plugin_refused", "plugin pages: closed") == await serve("GET", "closed")
        assert ("plugin_unavailable", "plugin pages: ZeroDivisionError: division by zero") == await serve(
            "GET", "broken"
        )
    assert ["pages"] == rig.failures


async def test_plugins_see_who_writes(rig):
    rig.add(
        "signs",
        """
@hookimpl
def transform_write(op, caller):
    return {**op, "by": [caller.id, caller.name, caller.scope, *caller.prefixes, caller.may_touch("price/1"),
        caller.may_touch("other")]}
""",
    )
    async with rig.run() as plugins:
        (write,) = await plugins.pass_writes([WRITE], ALICE)
        assert b'{"increment":3,"by":["alice","planner","write","price/",true,false]}' == write.op
        (write,) = await plugins.pass_writes([WRITE], Caller())
        assert b'{"increment":3,"by":["","","admin",true,true]}' == write.op


async def test_an_endpoint_whose_keys_are_no_parameters_is_refused(rig):
    rig.add(
        "typo",
        """
@hookimpl
def endpoints():
    return [Endpoint("GET", "read", "Read.", lambda request: 1, parameters={"key": "Which."}, keys=["kee"])]
""",
    )
    async with rig.run() as plugins:
        assert "read: keys ['kee'] are no parameters" in plugins.views()[0].error


async def test_listeners_learn_of_changes_and_those_that_fail_go_on(rig):
    log = rig.directory / "log"
    rig.add(
        "listens",
        f"@hookimpl\ndef on_change(change):\n    with open({str(log)!r}, 'a') as log:\n"
        "        print(change['key'], file=log, flush=True)\n    assert change['key'] != 'b'\n",
    )

    async def subscribe():
        yield [b'{"key":"a"}', b'{"key":"b"}', b'{"key":"c"}']
        yield [b'{"key":"d"}']
        await asyncio.Event().wait()

    async with rig.run(subscribe):
        await wait_for(lambda: log.exists() and log.read_text().endswith("d\n"), "all changes")

    assert ["a", "b", "d"] == log.read_text().split()
    assert ["listens"] == rig.failures


async def test_a_plugin_has_neither_the_environment_nor_the_files_of_its_parent(rig, monkeypatch, tmp_path):
    monkeypatch.setenv("A_SECRET", "hush")
    rig.add(
        "curious",
        "@hookimpl\ndef transform_read(value):\n"
        "    return [os.environ.get('A_SECRET'), sorted(map(int, os.listdir('/proc/self/fd')))[:3]]\n",
    )

    with (tmp_path / "open").open("w"):
        async with rig.run() as plugins:
            (value,) = await plugins.pass_values([VALUE])

    assert b"[null,[0,1,2]]" == value.text


async def test_no_process_outlives_the_host(rig):
    pid = rig.directory / "pid"
    rig.add(
        "family",
        "import subprocess\n@hookimpl\ndef configure(settings):\n"
        f"    child = subprocess.Popen(['sleep', '1000'])\n    open({str(pid)!r}, 'w').write(str(child.pid))\n",
    )

    def is_running() -> bool:
        try:
            return Path(f"/proc/{pid.read_text()}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    async with rig.run():
        assert is_running()
    await wait_for(lambda: not is_running(), "the plugin's child to end")
