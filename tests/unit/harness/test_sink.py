"""The sink of test notifications, told things by clients that are not ours."""

import asyncio
import http.client
import json
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness.spec.config import read_config
from loadtests.authority import Authority
from loadtests.cluster import free_port
from tests.sink import BYTES_MAX, LINE_BYTES_MAX, RECORDS_MAX, Login, Record, pod_manifests, serve_forever, values

_EVENT = {
    "routing_key": "0" * 32,
    "event_action": "trigger",
    "dedup_key": "a",
    "payload": {"summary": "a", "source": "b", "severity": "critical"},
}


@dataclass
class Running:
    """A sink in this process; clients block, so they run in threads."""

    record: Record
    http_port: int
    smtp_port: int

    @property
    def notifications(self) -> list[Any]:
        return [json.loads(line) for line in self.record.lines]

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, str]:
        def send() -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
            connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), headers)
            with connection.getresponse() as answer:
                return answer.status, answer.read().decode()

        return await asyncio.to_thread(send)

    async def mail(self, talk: Callable[[smtplib.SMTP], Any]) -> Any:
        def run() -> Any:
            with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=30) as client:
                return talk(client)

        return await asyncio.to_thread(run)


@pytest.fixture
async def start():
    tasks = []

    async def begin(login: Login | None = None, tls: ssl.SSLContext | None = None) -> Running:
        running = Running(Record(), free_port(), free_port())
        addresses = (f"127.0.0.1:{running.http_port}", f"127.0.0.1:{running.smtp_port}")
        tasks.append(asyncio.create_task(serve_forever(*addresses, running.record, login, tls)))
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", running.smtp_port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return running

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _message() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "[FIRING 1] größer"
    message["To"] = "team@example.com, night@example.com"
    message["From"] = "jarvis@example.com"
    message.set_content("first\n.second\n\nlast\n")
    return message


async def test_a_message_for_slack_is_recorded(start: Any):
    sink = await start()

    assert (200, "ok") == await sink.post("/services/T/B/X", {"attachments": [{"title": "größer"}]})
    body = {"attachments": [{"title": "größer"}]}
    assert [{"receiver": "slack", "path": "/services/T/B/X", "body": body}] == sink.notifications


async def test_an_event_for_pagerduty_is_recorded(start: Any):
    sink = await start()

    status, answer = await sink.post("/v2/enqueue", _EVENT)

    assert (202, "success", "a") == (status, json.loads(answer)["status"], json.loads(answer)["dedup_key"])
    assert [{"receiver": "pagerduty", "path": "/v2/enqueue", "body": _EVENT}] == sink.notifications


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/services/T/B/X", {}, 400),
        ("/services/T/B/X", [1], 400),
        ("/services/T/B/X", b"{", 400),
        ("/services/T/B/X", b"[" * 100_000, 400),
        ("/services/T/B/X", b"\xff", 400),
        ("/v2/enqueue", {**_EVENT, "routing_key": "short"}, 400),
        ("/v2/enqueue", {**_EVENT, "event_action": "shout"}, 400),
        ("/v2/enqueue", {**_EVENT, "payload": {"summary": "a", "source": "b", "severity": "none"}}, 400),
        ("/v2/enqueue", {**_EVENT, "payload": {"summary": "", "source": "b", "severity": "info"}}, 400),
        ("/v2/enqueue", {**_EVENT, "event_action": "resolve", "dedup_key": ""}, 400),
        ("/elsewhere", {}, 404),
    ],
)
async def test_what_the_services_would_refuse_is_refused(start: Any, path: str, body: Any, status: int):
    sink = await start()

    assert status == (await sink.post(path, body))[0]
    assert ["refused"] == [key for each in sink.notifications for key in each if key != "receiver"]


async def test_a_request_that_is_too_large_is_refused_before_it_is_read(start: Any):
    sink = await start()

    assert 413 == (await sink.post("/services/T/B/X", b"", **{"Content-Length": str(BYTES_MAX + 1)}))[0]
    assert 411 == (await sink.post("/services/T/B/X", b"0\r\n\r\n", **{"Transfer-Encoding": "chunked"}))[0]
    assert 500 == (await sink.post("/services/T/B/X", {}, name="a" * LINE_BYTES_MAX))[0]
    assert 400 == (await sink.post("/services/T/B/X", b"", **{"Content-Length": "-1"}))[0]


async def test_the_record_can_be_fetched(start: Any):
    sink = await start()
    await sink.post("/services/T/B/X", {"text": "a"})

    def fetch() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", sink.http_port, timeout=30)
        connection.request("GET", "/notifications")
        with connection.getresponse() as answer:
            return answer.read().decode()

    assert sink.notifications == [json.loads(line) for line in (await asyncio.to_thread(fetch)).splitlines()]


async def test_a_mail_is_recorded_as_it_was_written(start: Any):
    sink = await start()

    await sink.mail(lambda client: client.send_message(_message()))

    [mail] = sink.notifications
    assert ("jarvis@example.com", ["team@example.com", "night@example.com"]) == (mail["from"], mail["to"])
    assert ("[FIRING 1] größer", "first\n.second\n\nlast\n") == (mail["headers"]["Subject"], mail["text"])
    assert ("", False) == (mail["user"], mail["tls"])


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_user_logs_in(start: Any, mechanism: str, at_once: bool):
    sink = await start(Login("jarvis", "password"))

    def talk(client: smtplib.SMTP) -> None:
        client.ehlo()
        client.user, client.password = "jarvis", "password"
        client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"), initial_response_ok=at_once)
        client.send_message(_message())

    await sink.mail(talk)

    assert ["jarvis"] == [each["user"] for each in sink.notifications]


async def test_nobody_else_may_send_mail(start: Any):
    sink = await start(Login("jarvis", "password"))

    def wrong(client: smtplib.SMTP) -> None:
        client.login("jarvis", "another")

    with pytest.raises(smtplib.SMTPAuthenticationError):
        await sink.mail(wrong)
    with pytest.raises(smtplib.SMTPSenderRefused):
        await sink.mail(lambda client: client.send_message(_message()))
    said = [await sink.mail(lambda client, text=text: client.docmd("AUTH", text)[0]) for text in ("PLAIN =", "NTLM")]
    assert [501, 504] == said
    assert {"refused"} == {key for each in sink.notifications for key in each} - {"receiver"}


async def test_mail_is_sent_over_tls_after_starttls(start: Any, tmp_path: Path):
    files = Authority(tmp_path).issue("localhost", "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    sink = await start(Login("jarvis", "password"), tls)

    def talk(client: smtplib.SMTP) -> None:
        client.starttls(context=ssl.create_default_context(cafile=str(files.authority)))
        client.login("jarvis", "password")
        client.send_message(_message())
        assert 454 == client.docmd("STARTTLS")[0]

    await sink.mail(talk)

    assert ("jarvis", True) == (sink.notifications[0]["user"], sink.notifications[0]["tls"])


async def test_a_client_that_talks_nonsense_may_go_on(start: Any):
    sink = await start()

    def talk(client: smtplib.SMTP) -> list[int]:
        said = [client.docmd(text)[0] for text in ("RCPT TO:<a@b>", "DATA", "MAIL a", "MAIL FROM:a", "HELP", "NOOP")]
        client.send_message(_message())
        return said

    assert [503, 503, 501, 501, 500, 250] == await sink.mail(talk)
    assert "text" in sink.notifications[-1]


async def test_what_a_mail_may_hold_is_bounded(start: Any):
    sink = await start()
    message = _message()
    message.set_content("a line of text\n" * (BYTES_MAX // 15 + 1))

    with pytest.raises(smtplib.SMTPDataError):
        await sink.mail(lambda client: client.sendmail("a@example.com", ["b@example.com"], message.as_bytes()))
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        await sink.mail(lambda client: _offer(client, 101))
    with pytest.raises(smtplib.SMTPServerDisconnected):
        await sink.mail(lambda client: client.docmd("NOOP", "a" * LINE_BYTES_MAX))
    assert [] == [each for each in sink.notifications if "text" in each]


def _offer(client: smtplib.SMTP, recipients: int) -> None:
    client.ehlo()
    client.mail("a@example.com")
    for number in range(recipients):
        code, _ = client.rcpt(f"b{number}@example.com")
        if code != 250:
            raise smtplib.SMTPRecipientsRefused({})


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(start: Any):
    sink = await start()
    for start_of in (b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: a\r\n\r\nhalf", b"EH", b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.smtp_port)
        writer.write(start_of)
        writer.write_eof()
        await reader.read()
        writer.close()
    await sink.post("/services/T/B/X", {"text": "a"})

    assert ["slack"] == [each["receiver"] for each in sink.notifications]


def test_a_record_has_an_end():
    record = Record()
    for number in range(RECORDS_MAX + 1):
        record.add(number=number)

    assert RECORDS_MAX == len(record.lines)


def test_the_pod_is_restricted_and_valid():
    for login in (None, ("jarvis", "sink-email")):
        for manifest in pod_manifests("jarvis/crdt-service:1", login=login):
            kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_the_values_are_accepted(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values(user="jarvis")))

    assert values(user="jarvis") == read_config(file).overrides
