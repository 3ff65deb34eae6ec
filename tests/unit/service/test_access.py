"""API keys at the door of the real application: who is let in, who is not, and what is said of it."""

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from crdt_service.__main__ import main
from crdt_service.access.buckets import Buckets
from crdt_service.access.key import KeyFile, encode_keys, new_key
from crdt_service.access.keyring import Keyring
from crdt_service.access.limit import Limit
from crdt_service.access.principal import ANYONE, STRANGER, Principal, Scope
from crdt_service.api.application import Application
from crdt_service.api.call import show
from crdt_service.api.gates import FAILURES, Authentication, Authorization, RateLimiting, read_address
from crdt_service.api.route import Access, Route
from crdt_service.kernel.error import ConfigError, ServiceError
from crdt_service.telemetry.log import TextFormatter
from tests.unit.service.double import NullObserver

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def randomness():
    count = iter(range(1, 256))
    return lambda size: bytes([next(count)]) * size


class Door:
    """An application with a page for each kind of access, and a key file of which the tests have the tokens."""

    def __init__(self, directory, limit=None):
        self.now = NOON.timestamp()
        self.monotonic = 0.0
        self.path = directory / "api-keys.json"
        self.randomness = randomness()
        self.keys = {}
        self.tokens = {}
        self.add("reader", "read")
        self.add("writer", "write")
        self.add("admin", "admin")
        self.keyring = Keyring(self.path, lambda: self.now)
        gates = [Authentication(self.keyring, lambda: self.monotonic)]
        if limit is not None:
            gates.append(RateLimiting(Buckets(), limit, lambda: 1, lambda: self.monotonic))
        self.calls = []
        routes = [
            Route("GET", "/health", "health", Access.PUBLIC, "", self.answer),
            Route("GET", "/v1/keys/{key}", "read_key", Access.READ, "", self.answer),
            Route("POST", "/v1/keys/{key}", "write_key", Access.WRITE, "", self.answer),
            Route("POST", "/v1/things", "administer", Access.ADMIN, "", self.answer),
        ]
        self.application = Application(routes, NullObserver(), [*gates, Authorization()])

    def add(self, name, scope, **more):
        self.keys[name], self.tokens[name] = new_key(name, scope, self.randomness, **more)
        self.write()

    def write(self):
        self.path.write_bytes(encode_keys(KeyFile(tuple(self.keys.values()))))

    async def answer(self, call):
        self.calls.append(call)
        return show({})

    async def ask(self, *headers, method="GET", path="/v1/keys/k", host="10.0.0.1"):
        """Return (status, error code or None, headers)."""
        sent = []
        scope = {
            "method": method,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "client": (host, 1),
        }

        async def send(message):
            sent.append(message)

        await self.application(scope, None, send)
        error = json.loads(sent[1]["body"]).get("error", {})
        return sent[0]["status"], error.get("code"), dict(sent[0]["headers"])

    async def with_key(self, name, **where):
        return (await self.ask((b"authorization", b"Bearer " + self.tokens[name].encode()), **where))[:2]


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


OK = (200, None)
UNKNOWN = (401, "unauthenticated")


@pytest.mark.parametrize(
    ("name", "allowed"), [("reader", {"read"}), ("writer", {"read", "write"}), ("admin", {"read", "write", "admin"})]
)
async def test_each_scope_includes_those_before_it(door, name, allowed):
    pages = {"read": ("GET", "/v1/keys/k"), "write": ("POST", "/v1/keys/k"), "admin": ("POST", "/v1/things")}
    for scope, (method, path) in pages.items():
        expected = OK if scope in allowed else (403, "forbidden")
        assert expected == await door.with_key(name, method=method, path=path)


async def test_public_pages_need_no_key_and_their_caller_may_touch_nothing(door):
    assert OK == (await door.ask(path="/health"))[:2]
    assert STRANGER == door.calls[0].principal
    assert not STRANGER.may_touch("k")
    assert not STRANGER.may_touch("_jarvis/k")


async def test_the_caller_is_put_on_the_call(door):
    await door.with_key("writer")
    assert (door.keys["writer"].id, "writer", Scope.WRITE) == (
        door.calls[0].principal.id,
        door.calls[0].principal.name,
        door.calls[0].principal.scope,
    )


def bearer(value):
    return ((b"authorization", value),)


TOKEN = new_key("x", "read", randomness())[1].encode()  # Its id is the reader's.
OTHER_CLUSTERS = new_key("x", "read", bytes)[1].encode()


@pytest.mark.parametrize(
    "headers",
    [
        (),
        bearer(b""),
        bearer(b"Bearer"),
        bearer(b"Bearer "),
        bearer(b"Basic " + TOKEN),
        bearer(TOKEN),
        bearer(b"Bearer " + OTHER_CLUSTERS),
        bearer(b"Bearer " + TOKEN[:-1]),
        bearer(b"Bearer " + TOKEN + b"0"),
        bearer(b"Bearer " + TOKEN[:-1] + (b"0" if TOKEN[-1:] != b"0" else b"1")),
        bearer(b"Bearer " + TOKEN.upper()),
        bearer(b"Bearer " + TOKEN + b"a" * 60_000),
        bearer(b"Bearer " + b"a" * 60_000),
        bearer(b"Bearer jarvis_" + "é".encode() * 40 + b"_"),
        bearer(b"Bearer " + bytes(range(128, 256))),
        bearer(b"Bearer " + b"_" * len(TOKEN)),
        bearer(b"Bearer jarvis__"),
        bearer(b"Bearer " + TOKEN + b", Bearer " + TOKEN),
        ((b"x-api-key", b"Bearer " + TOKEN),),
    ],
    ids=lambda headers: repr(headers)[:60],
)
async def test_what_is_no_good_key_is_refused_alike_and_told_to_nobody(door, caplog, headers):
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(TextFormatter(is_coloured=False))
    status, code, answered = await door.ask(*headers)
    assert UNKNOWN == (status, code)
    assert answered[b"www-authenticate"].startswith(b'Bearer realm="jarvis"')
    assert [] == door.calls
    for _, value in headers:
        secret = value.rpartition(b"_")[2].decode("latin-1")
        assert len(secret) < 8 or secret not in caplog.text


async def test_the_scheme_is_of_any_case_and_another_header_does_as_well(door):
    token = door.tokens["reader"].encode()
    assert OK == (await door.ask((b"authorization", b"bEARER  " + token)))[:2]
    assert OK == (await door.ask((b"x-api-key", token)))[:2]


@pytest.mark.parametrize("second", [b"authorization", b"x-api-key"])
async def test_two_keys_are_refused_though_both_are_good(door, second):
    token = door.tokens["reader"].encode()
    answer = await door.ask((b"authorization", b"Bearer " + token), (second, token))
    assert (400, "invalid_header") == answer[:2]


async def test_a_key_is_good_from_its_beginning_until_its_end(door):
    door.add("brief", "read", not_before=NOON, expires_at=NOON + HOUR)
    door.keyring.refresh()
    seen = []
    for seconds in (-1, 0, 3599, 3600, 10**6):
        door.now = NOON.timestamp() + seconds
        seen.append(await door.with_key("brief"))
    assert [UNKNOWN, OK, OK, (401, "key_expired"), (401, "key_expired")] == seen


async def test_a_wrong_secret_does_not_learn_that_the_key_expired(door):
    door.add("old", "read", expires_at=NOON - HOUR)
    door.keyring.refresh()
    door.tokens["old"] = door.tokens["old"][:-2] + "zz"
    assert UNKNOWN == await door.with_key("old")


async def test_prefixes_bound_what_is_touched(door):
    door.add("agent", "write", prefixes=("agent/7/", "shared/"))
    door.keyring.refresh()
    for key, expected in {
        "agent%2F7%2Fplan": OK,
        "shared/": OK,
        "agent%2F8%2Fplan": (403, "forbidden"),
        "agent/7": (403, "forbidden"),
        "": (400, "invalid_key"),
    }.items():
        assert expected == await door.with_key("agent", path=f"/v1/keys/{key}"), key
        assert expected == await door.with_key("agent", path=f"/v1/keys/{key}", method="POST"), key


@pytest.mark.parametrize("key", ["_jarvis/rate-limits", "_jarvis%2Frate-limits", "%5Fjarvis/x"])
async def test_nobody_reaches_reserved_keys(door, key):
    for name in ("admin", "reader"):
        assert (400, "invalid_key") == await door.with_key(name, path=f"/v1/keys/{key}")
    assert not ANYONE.may_touch("_jarvis/x")
    assert ANYONE.may_touch("_jarvi")


@pytest.mark.parametrize(
    ("prefixes", "asked", "given"),
    [
        ((), "", ""),
        ((), "a", "a"),
        (("a/",), "", "a/"),
        (("a/",), "a", "a/"),
        (("a/",), "a/", "a/"),
        (("a/",), "a/b", "a/b"),
        (("a/", "b/"), "b/c", "b/c"),
        (("a/1/", "b/"), "a", "a/1/"),
        (("a/",), "b", None),
        (("a/", "b/"), "", None),
    ],
)
def test_a_listing_is_narrowed_to_what_is_the_callers_or_refused(prefixes, asked, given):
    principal = Principal("id", "name", Scope.READ, prefixes)
    if given is None:
        with pytest.raises(ServiceError) as refused:
            principal.narrow(asked)
        assert "forbidden" == refused.value.code
    else:
        assert given == principal.narrow(asked)


def test_no_listing_begins_at_reserved_keys():
    with pytest.raises(ServiceError) as refused:
        ANYONE.narrow("_jarvis/rate")
    assert "invalid_key" == refused.value.code


async def test_a_revoked_key_is_refused_from_the_next_request_on(door, caplog):
    caplog.set_level(logging.INFO)
    assert OK == await door.with_key("writer")
    under_way = door.calls[0]
    assert under_way.is_admitted()
    gone = door.keys.pop("writer")
    door.write()
    door.keyring.refresh()
    assert UNKNOWN == await door.with_key("writer")
    assert not under_way.is_admitted()
    (record,) = (record for record in caplog.records if record.getMessage() == "api_keys_changed")
    assert {"added": [], "removed": [gone.id], "changed": []} == record.fields


async def test_a_key_that_got_other_rights_ends_what_is_under_way(door):
    await door.with_key("writer")
    fewer, door.tokens["writer"] = new_key("writer", "read", randomness())
    door.keys["writer"] = type(fewer)(id=door.keys["writer"].id, name="writer", sha256=fewer.sha256, scope="read")
    door.write()
    door.keyring.refresh()
    assert not door.calls[0].is_admitted()


async def test_a_secret_mounted_by_kubernetes_is_followed(tmp_path):
    """Its files are links through a link to a directory, which alone is replaced."""
    one, two = Door(tmp_path), tmp_path / "two"
    mount = tmp_path / "mount"
    (mount / "1").mkdir(parents=True)
    (mount / "..data").symlink_to("1")
    (mount / "api-keys.json").symlink_to("..data/api-keys.json")
    (mount / "1/api-keys.json").write_bytes(one.path.read_bytes())
    keyring = Keyring(mount / "api-keys.json", lambda: one.now)
    two.mkdir()
    added = one.add("late", "read")
    assert added is None
    (mount / "2").mkdir()
    (mount / "2/api-keys.json").write_bytes(one.path.read_bytes())
    (mount / "..new").symlink_to("2")
    (mount / "..new").rename(mount / "..data")
    with pytest.raises(ServiceError):
        keyring.authenticate(one.tokens["late"].encode())
    keyring.refresh()
    assert "late" == keyring.authenticate(one.tokens["late"].encode()).name


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys": 1}', b"\xff", b" " * (1 << 21), None])
async def test_a_broken_file_is_told_of_once_and_changes_nothing(door, caplog, content):
    if content is None:
        door.path.unlink()
    else:
        door.path.write_bytes(content)
    for _ in range(3):
        door.keyring.refresh()
    assert OK == await door.with_key("reader")
    assert 1 == caplog.text.count("new API keys are not used")
    door.write()
    door.keyring.refresh()
    assert OK == await door.with_key("reader")


GOOD = {"id": "0" * 16, "name": "n", "sha256": "0" * 64, "scope": "read"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "x"}, r"\$.keys\[0\].id"),
        ({"id": "0" * 16 + "\n"}, "id"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"scope": "root"}, "scope"),
        ({"name": ""}, "name"),
        ({"name": "n\n2030-01-01 INFO forged"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"prefixes": [""]}, "prefixes"),
        ({"prefixes": ["p"] * 65}, "prefixes"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"rate_limit": {"requests_per_minute": 0, "burst_limit": 1}}, "requests_per_minute"),
        ({"scope": "admin", "prefixes": ["p"]}, "admin and has prefixes"),
        ({"not_before": "2030-01-01T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"}, "expires before"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_at_the_start(tmp_path, change, says):
    path = tmp_path / "keys"
    path.write_text(json.dumps({"keys": [GOOD | change]}))
    with pytest.raises(ConfigError, match=says):
        Keyring(path, float)


@pytest.mark.parametrize(("count", "says"), [(2, "two keys have the id 0000000000000000"), (1001, r"length <= 1000")])
def test_ids_are_unique_and_keys_are_bounded(tmp_path, count, says):
    path = tmp_path / "keys"
    path.write_text(json.dumps({"keys": [GOOD] * count}))
    with pytest.raises(ConfigError, match=says):
        Keyring(path, float)


def test_a_file_that_lists_no_keys_lets_nobody_in_but_one_without_a_list_is_a_mistake(tmp_path):
    path = tmp_path / "keys"
    path.write_text('{"keys": []}')
    Keyring(path, float)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="keys"):
        Keyring(path, float)


def test_a_missing_file_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the API keys"):
        Keyring(tmp_path / "none", float)


async def test_failures_are_limited_by_address_and_good_keys_are_not(door, caplog):
    caplog.set_level(logging.INFO)
    seen = [(await door.ask())[:2] for _ in range(FAILURES.burst_limit + 5)]
    assert [UNKNOWN] * FAILURES.burst_limit + [(429, "rate_limited")] * 5 == seen
    assert FAILURES.burst_limit == caplog.text.count("authentication_failed")
    assert b"6" == (await door.ask())[2][b"retry-after"]
    assert UNKNOWN == (await door.ask(host="10.0.0.2"))[:2]
    assert OK == await door.with_key("reader")
    door.monotonic = 6.0
    assert UNKNOWN == (await door.ask())[:2]


async def test_a_failure_names_the_key_only_if_there_is_one(door, caplog):
    caplog.set_level(logging.INFO)
    wrong = door.tokens["reader"][:-2] + "zz"
    await door.ask((b"authorization", f"Bearer {wrong}".encode()))
    await door.ask((b"authorization", b"Bearer " + OTHER_CLUSTERS))
    first, second = (record.fields for record in caplog.records if record.name == "jarvis.audit")
    assert (door.keys["reader"].id, "10.0.0.1") == (first["key"], first["address"])
    assert "" == second["key"]


@pytest.mark.parametrize(("name", "is_allowed"), [("admin", True), ("writer", False)])
async def test_each_administrative_request_is_audited(door, caplog, name, is_allowed):
    caplog.set_level(logging.INFO)
    await door.with_key(name, method="POST", path="/v1/things")
    await door.with_key(name)
    (record,) = (record for record in caplog.records if record.name == "jarvis.audit")
    fields = record.fields
    assert ("admin_request", "administer", door.keys[name].id, is_allowed) == (
        record.message,
        fields["operation"],
        fields["key"],
        fields["allowed"],
    )


class TestLimits:
    LIMIT = Limit(requests_per_minute=60, burst_limit=3)

    @pytest.fixture
    def door(self, tmp_path):
        return Door(tmp_path, self.LIMIT)

    async def ask(self, door, name="reader", **where):
        return await door.ask((b"x-api-key", door.tokens[name].encode()), **where)

    async def test_every_limited_answer_tells_the_limit(self, door):
        _, _, headers = await self.ask(door)
        told = {name: value for name, value in headers.items() if name.startswith((b"ratelimit", b"retry"))}
        assert {
            b"ratelimit-policy": b'"default";q=3;w=3',
            b"ratelimit": b'"default";r=2;t=1',
            b"ratelimit-limit": b"3",
            b"ratelimit-remaining": b"2",
            b"ratelimit-reset": b"1",
        } == told

    async def test_beyond_the_burst_it_says_when_to_come_again(self, door):
        seen = [await self.ask(door) for _ in range(4)]
        assert [200, 200, 200, 429] == [status for status, _, _ in seen]
        assert ("rate_limited", b"1", b'"default";r=0;t=3') == (
            seen[3][1],
            seen[3][2][b"retry-after"],
            seen[3][2][b"ratelimit"],
        )
        door.monotonic = 1.0
        assert 200 == (await self.ask(door))[0]

    async def test_keys_are_limited_apart_and_a_refusal_counts(self, door):
        for _ in range(3):
            assert 403 == (await self.ask(door, method="POST"))[0]
        assert 429 == (await self.ask(door))[0]
        assert 200 == (await self.ask(door, "writer"))[0]

    async def test_public_pages_are_exempt(self, door):
        for _ in range(5):
            status, _, headers = await self.ask(door, path="/health")
            assert (200, False) == (status, b"ratelimit" in headers)

    async def test_a_key_may_have_a_limit_of_its_own(self, door):
        door.add("heavy", "read", rate_limit=Limit(requests_per_minute=600, burst_limit=20))
        door.keyring.refresh()
        assert b'"default";q=20;w=2' == (await self.ask(door, "heavy"))[2][b"ratelimit-policy"]

    async def test_a_request_that_is_several_costs_as_many(self, door):
        await self.ask(door)
        call = door.calls[0]
        call.charge(2)
        assert [b'"default";r=0;t=3'] == [value for name, value in call.headers if name == b"ratelimit"]
        with pytest.raises(ServiceError, match="more than 60 requests a minute"):
            call.charge(1)
        with pytest.raises(ServiceError, match="costs more than the 3 allowed at once"):
            call.charge(4)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::6", "2001:db8:1:2::"),
        ("2001:db8::6", "2001:db8::"),
        ("1::4:5:6:7:8", "1:0:0:4::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(host, address):
    assert address == read_address({"client": (host, 1)})


def test_a_client_without_an_address_is_one_too():
    assert "" == read_address({"client": None})


class TestCommand:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "api-keys.json"

    @pytest.fixture
    def api_key(self, path, capsys):
        def run(action, *arguments):
            code = main(["api-key", action, str(path), *arguments])
            shown = capsys.readouterr()
            return code, shown.out.strip() if code == 0 else shown.err

        return run

    def test_a_created_key_is_good_and_its_token_is_not_in_the_file(self, path, api_key):
        code, token = api_key("create", "--name", "ci", "--scope", "write", "--prefix", "ci/", "--prefix", "tmp/")
        assert 0 == code
        assert token not in path.read_text()
        assert token.rpartition("_")[2] not in path.read_text()
        principal = Keyring(path, lambda: 0.0).authenticate(token.encode())
        assert ("ci", Scope.WRITE, ("ci/", "tmp/")) == (principal.name, principal.scope, principal.prefixes)
        assert 0o600 == path.stat().st_mode & 0o777

    def test_the_list_shows_no_hash(self, path, api_key):
        api_key("create", "--name", "a", "--scope", "read", "--requests-per-minute", "5", "--burst-limit", "6")
        (shown,) = json.loads(api_key("list")[1])
        assert {"id", "name", "scope", "rate_limit"} == set(shown)

    def test_a_rotated_key_and_its_successor_overlap(self, path, api_key):
        _, old = api_key("create", "--name", "a", "--scope", "write", "--prefix", "p/")
        _, new = api_key("rotate", old.split("_")[1], "--overlap-hours", "1")
        now = datetime.now(UTC).timestamp()
        after = Keyring(path, lambda: now + 3700)
        before = Keyring(path, lambda: now)
        assert (("p/",), "a") == (before.authenticate(old.encode()).prefixes, before.authenticate(new.encode()).name)
        assert ("p/",) == after.authenticate(new.encode()).prefixes
        with pytest.raises(ServiceError, match="has expired"):
            after.authenticate(old.encode())
        assert 2 == api_key("rotate", old.split("_")[1], "--overlap-hours", "-1")[0]

    def test_a_successor_is_the_same_caller_also_of_a_successor(self, path, api_key):
        _, old = api_key("create", "--name", "a", "--scope", "write")
        _, new = api_key("rotate", old.split("_")[1])
        _, newest = api_key("rotate", new.split("_")[1])
        ring = Keyring(path, lambda: datetime.now(UTC).timestamp())
        lineages = {ring.authenticate(token.encode()).lineage for token in (old, new, newest)}
        assert {old.split("_")[1]} == lineages

    def test_a_name_is_given_once(self, path, api_key):
        _, token = api_key("create", "--name", "a", "--scope", "read")
        before = path.read_bytes()
        code, said = api_key("create", "--name", "a", "--scope", "read", "--expires-at", "2040-01-01T00:00:00Z")
        assert (2, before) == (code, path.read_bytes())
        assert f"the key {token.split('_')[1]} is called 'a'" in said

    @pytest.mark.parametrize(
        ("changes", "is_refused"),
        [
            (({}, {}), True),
            (({"scope": "write"}, {"expires_at": "2040-01-01T00:00:00Z"}), True),
            (({"prefixes": ["a/"]}, {"expires_at": "2040-01-01T00:00:00Z"}), True),
            (({"expires_at": "2040-01-01T00:00:00Z"}, {}), False),  # As the release before rotates.
            (({}, {"succeeds": "0" * 16}), False),
            (({}, {"name": "b"}), False),
        ],
    )
    def test_a_file_with_two_keys_of_one_name_is_refused_unless_one_replaced_the_other(self, path, changes, is_refused):
        keys = [
            {"id": f"{number}" * 16, "name": "a", "sha256": "0" * 64, "scope": "read", **change}
            for number, change in enumerate(changes)
        ]
        path.write_text(json.dumps({"keys": keys}))
        if is_refused:
            with pytest.raises(ConfigError, match="have the name 'a'"):
                Keyring(path, lambda: 0.0)
        else:
            Keyring(path, lambda: 0.0)

    def test_a_revoked_key_is_gone(self, path, api_key):
        _, token = api_key("create", "--name", "a", "--scope", "read")
        assert (0, "") == api_key("revoke", token.split("_")[1])
        assert [] == json.loads(api_key("list")[1])
        assert 2 == api_key("revoke", token.split("_")[1])[0]

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--scope", "admin", "--prefix", "p"),
            ("--scope", "read", "--requests-per-minute", "5"),
            ("--scope", "read", "--requests-per-minute", "0", "--burst-limit", "1"),
            ("--scope", "read", "--prefix", ""),
        ],
    )
    def test_a_key_that_breaks_a_rule_is_not_added(self, path, api_key, arguments):
        code, said = api_key("create", "--name", "a", *arguments)
        assert (2, False) == (code, path.exists())
        assert "remedy" in said

    def test_a_file_that_is_none_is_left_alone(self, path, api_key):
        path.write_text("mine")
        assert 2 == api_key("create", "--name", "a", "--scope", "read")[0]
        assert "mine" == path.read_text()
