"""Where test notifications go: it speaks what Slack, a mail server and PagerDuty speak, and writes down what came.

`python3 -m tests.sink --record FILE` (or the file alone: it needs nothing but the standard library) listens for HTTP
and SMTP until it is ended, and appends a line of JSON for each notification, and for each one that it refused:

    {"receiver": "slack", "path": "/services/T/B/X", "body": {...}}
    {"receiver": "email", "from": "a@example.com", "to": ["b@example.com"], "user": "jarvis", "tls": true,
     "headers": {"Subject": "..."}, "text": "..."}
    {"receiver": "pagerduty", "path": "/v2/enqueue", "body": {...}}
    {"receiver": "...", "refused": "why"}

- Slack: POST of a JSON object with `text` or `attachments` to any path below /services/ is answered `ok`.
- PagerDuty: POST of an event to /v2/enqueue is answered 202; an event that the Events API v2 would refuse, 400.
- SMTP: EHLO, STARTTLS (with --certificate and --key), AUTH PLAIN and LOGIN (with --user and --password-file, and then
  required), MAIL, RCPT, DATA.

Nothing it takes is larger than BYTES_MAX, no line longer than LINE_BYTES_MAX, no connection idle for IDLE_SECONDS.
GET /notifications returns the record, so that a test reads it through a forwarded port.

In a cluster, beside a release, as tests/e2e/test_notifications.py does it:

1. A ConfigMap with this file, and a pod with the service's image that runs it from there, under `restricted`:
   `python3 /sink/sink.py --http 0.0.0.0:8080 --smtp 0.0.0.0:2525`; a Service `sink` with ports 8080 and 2525 as they
   are, because NetworkPolicies see the ports of pods. `pod_manifests` returns all three.
2. Secrets: `sink-slack` with url=http://sink:8080/services/T/B/X, `sink-pagerduty` with routing-key=32 characters.
3. Values, as `values` returns them: each receiver enabled with its Secret, `slack.port: 8080`,
   `email.smarthost: sink:2525` without a user and `require_tls: false`, `pagerduty.url: http://sink:8080/v2/enqueue`,
   and times of a second in place of minutes.
"""

import argparse
import asyncio
import base64
import binascii
import email
import email.policy
import hmac
import json
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BYTES_MAX = 1 << 20
LINE_BYTES_MAX = 8192
RECORDS_MAX = 10_000
IDLE_SECONDS = 60.0
_ACTIONS = ("trigger", "acknowledge", "resolve")
_SEVERITIES = ("critical", "error", "warning", "info")


class RefusedError(Exception):
    """What came is not what the protocol allows.

    Attributes:
        status: The status of HTTP, or the code of SMTP, that it is answered with.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass
class Record:
    """What came, in order; written to a file as well if there is one."""

    file: Path | None = None
    lines: list[str] = field(default_factory=list)

    def add(self, **what: Any) -> None:
        """Append; beyond RECORDS_MAX nothing is kept."""
        if len(self.lines) < RECORDS_MAX:
            self.lines.append(json.dumps(what))
            if self.file:
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(self.lines[-1] + "\n")


@dataclass(frozen=True)
class Login:
    """Who may send mail."""

    user: str
    password: str

    def check(self, user: str, password: str) -> None:
        """Raise if it is somebody else."""
        right = hmac.compare_digest(f"{user}\0{password}".encode(), f"{self.user}\0{self.password}".encode())
        if not right:
            raise RefusedError(535, "authentication failed")


def check_slack(body: Any) -> None:
    """Raise if Slack would not take this message of an incoming webhook."""
    if not isinstance(body, dict) or not (body.get("text") or body.get("attachments")):
        raise RefusedError(400, "no_text")


def check_pagerduty(body: Any) -> None:
    """Raise if the Events API v2 would not take this event."""
    if not isinstance(body, dict) or body.get("event_action") not in _ACTIONS:
        raise RefusedError(400, "event_action is none of those there are")
    if not isinstance(body.get("routing_key"), str) or len(body["routing_key"]) != 32:
        raise RefusedError(400, "routing_key is not of 32 characters")
    if body["event_action"] != "trigger":
        if not body.get("dedup_key"):
            raise RefusedError(400, "dedup_key is missing")
        return
    payload = body.get("payload")
    if not isinstance(payload, dict) or not all(payload.get(key) for key in ("summary", "source")):
        raise RefusedError(400, "summary or source is missing")
    if payload.get("severity") not in _SEVERITIES:
        raise RefusedError(400, "severity is none of those there are")


async def read_line(reader: asyncio.StreamReader) -> str:
    """The next line without its end; empty at the end of the stream."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            line = await reader.readline()
    except ValueError:
        raise RefusedError(500, "line too long") from None
    if line and not line.endswith(b"\n"):
        raise ConnectionResetError
    return line.decode("utf-8", "replace").rstrip("\r\n")


# ---- HTTP: one request for each connection ----


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: Record) -> None:
    """Answer one request."""
    receiver, kind = "http", "text/plain"
    try:
        method, path, body = await _read_request(reader)
        if (method, path) == ("GET", "/notifications"):
            status, answer = 200, "".join(f"{line}\n" for line in record.lines)
        elif (method, path) == ("POST", "/v2/enqueue"):
            receiver, kind = "pagerduty", "application/json"
            event = _parse(body)
            check_pagerduty(event)
            record.add(receiver=receiver, path=path, body=event)
            done = {"status": "success", "message": "Event processed", "dedup_key": event.get("dedup_key", "")}
            status, answer = 202, json.dumps(done)
        elif method == "POST" and path.startswith("/services/"):
            receiver = "slack"
            message = _parse(body)
            check_slack(message)
            record.add(receiver=receiver, path=path, body=message)
            status, answer = 200, "ok"
        else:
            raise RefusedError(404, f"nothing answers {method} {path}")
    except RefusedError as refusal:
        record.add(receiver=receiver, refused=str(refusal))
        status = refusal.status
        answer = str(refusal)
        if receiver == "pagerduty":
            answer = json.dumps({"status": "invalid event", "message": "Event object is invalid", "errors": [answer]})
    content = answer.encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + content)
    await writer.drain()


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    method, _, rest = (await read_line(reader)).partition(" ")
    path = rest.partition(" ")[0]
    size = 0
    for _ in range(100):
        name, _, value = (await read_line(reader)).partition(":")
        if not name:
            break
        if name.lower() == "content-length":
            if not value.strip().isascii() or not value.strip().isdigit():
                raise RefusedError(400, "no length")
            size = int(value)
        elif name.lower() == "transfer-encoding":
            raise RefusedError(411, "a length is needed")
    else:
        raise RefusedError(431, "too many headers")
    if size > BYTES_MAX:
        raise RefusedError(413, "too large")
    async with asyncio.timeout(IDLE_SECONDS):
        return method, path, await reader.readexactly(size)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "no JSON") from None


# ---- SMTP ----


class Smtp:
    """One connection of a mail client."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        record: Record,
        login: Login | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reader, self._writer, self._record = reader, writer, record
        self._login, self._tls = login, tls
        self._user, self._secured = "", False
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def serve(self) -> None:
        """Talk until the client leaves."""
        await self._say(220, "sink")
        commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": self._helo,
        }
        while line := await read_line(self._reader):
            name, _, rest = line.partition(" ")
            if name.upper() == "QUIT":
                await self._say(221, "bye")
                return
            try:
                if name.upper() not in commands:
                    raise RefusedError(500, f"unknown command {name[:20]}")
                await commands[name.upper()](rest)
            except RefusedError as refusal:
                self._record.add(receiver="email", refused=str(refusal))
                await self._say(refusal.status, str(refusal))

    async def _say(self, code: int, *lines: str) -> None:
        *first, last = lines
        text = "".join(f"{code}-{line}\r\n" for line in first) + f"{code} {last}\r\n"
        self._writer.write(text.encode())
        await self._writer.drain()

    async def _ehlo(self, _: str) -> None:
        starttls = ["STARTTLS"] if self._tls and not self._secured else []
        auth = ["AUTH LOGIN PLAIN"] if self._login else []
        await self._say(250, "sink", f"SIZE {BYTES_MAX}", *starttls, *auth)

    async def _helo(self, _: str) -> None:
        await self._say(250, "sink")

    async def _starttls(self, _: str) -> None:
        if not self._tls or self._secured:
            raise RefusedError(454, "no TLS here")
        await self._say(220, "go ahead")
        await self._writer.start_tls(self._tls)
        self._user, self._secured = "", True
        self._forget()

    async def _auth(self, rest: str) -> None:
        if not self._login:
            raise RefusedError(503, "no authentication here")
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "PLAIN":
            _, user, password, *_ = (self._decode(initial or await self._ask("")) + "\0\0").split("\0")
        elif mechanism.upper() == "LOGIN":
            user = self._decode(initial or await self._ask("Username:"))
            password = self._decode(await self._ask("Password:"))
        else:
            raise RefusedError(504, "unknown mechanism")
        self._login.check(user, password)
        self._user = user
        await self._say(235, "welcome")

    async def _ask(self, prompt: str) -> str:
        await self._say(334, base64.b64encode(prompt.encode()).decode())
        return await read_line(self._reader)

    @staticmethod
    def _decode(text: str) -> str:
        try:
            return base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise RefusedError(501, "no base64") from None

    async def _mail(self, rest: str) -> None:
        if self._login and not self._user:
            raise RefusedError(530, "authentication required")
        self._forget()
        self._sender = self._address(rest, "FROM:")
        await self._say(250, "ok")

    async def _rcpt(self, rest: str) -> None:
        if self._sender is None:
            raise RefusedError(503, "MAIL comes first")
        if len(self._recipients) >= 100:
            raise RefusedError(452, "too many recipients")
        self._recipients.append(self._address(rest, "TO:"))
        await self._say(250, "ok")

    @staticmethod
    def _address(rest: str, label: str) -> str:
        start, _, after = rest.partition("<")
        address, end, _ = after.partition(">")
        if start.strip().upper() != label or not end:
            raise RefusedError(501, "no address")
        return address

    async def _data(self, _: str) -> None:
        if not self._recipients:
            raise RefusedError(503, "RCPT comes first")
        await self._say(354, "end with a line of a dot")
        lines, size = [], 0
        while (line := await self._read_text()) != ".":
            size += len(line) + 2
            if size <= BYTES_MAX:
                lines.append(line.removeprefix("."))
        if size > BYTES_MAX:
            self._forget()
            raise RefusedError(552, "too large")
        text = "".join(f"{line}\n" for line in lines)
        message = email.message_from_string(text, policy=email.policy.default)
        body = message.get_body(("plain",)) if hasattr(message, "get_body") else None
        self._record.add(
            receiver="email",
            **{"from": self._sender, "to": self._recipients, "user": self._user, "tls": self._secured},
            headers={name: str(value) for name, value in message.items()},
            text=body.get_content() if body else "",
        )
        self._forget()
        await self._say(250, "ok")

    async def _read_text(self) -> str:
        line = await read_line(self._reader)
        if not line and self._reader.at_eof():
            raise ConnectionResetError
        return line

    async def _rset(self, _: str) -> None:
        self._forget()
        await self._say(250, "ok")

    def _forget(self) -> None:
        self._sender, self._recipients = None, []


# ---- The program ----


async def serve_forever(http: str, smtp: str, record: Record, login: Login | None, tls: ssl.SSLContext | None) -> None:
    """Listen at both addresses, `HOST:PORT`, until cancelled."""

    def guard(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Any:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, EOFError, TimeoutError, RefusedError):
                try:
                    await serve(reader, writer)
                finally:
                    writer.close()

        return connected

    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Smtp(reader, writer, record, login, tls).serve()

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_http(reader, writer, record)

    servers = []
    for address, serve in ((http, web), (smtp, mail)):
        host, _, port = address.rpartition(":")
        servers.append(await asyncio.start_server(guard(serve), host, int(port), limit=LINE_BYTES_MAX))
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def pod_manifests(image: str, *, pull_policy: str = "IfNotPresent", login: tuple[str, str] | None = None) -> list[Any]:
    """Return ConfigMap, Pod and Service of a sink, for a namespace that enforces `restricted`.

    Args:
        image: An image with Python 3.11, like the service's.
        pull_policy: Whether it is pulled.
        login: The user who may send mail, and the Secret that has the password under the key `password`; None for
            everybody.
    """
    labels, metadata = {"app": "sink"}, {"name": "sink"}
    command = ["python3", "/sink/sink.py", "--http=0.0.0.0:8080", "--smtp=0.0.0.0:2525"]
    volumes: list[Any] = [{"name": "sink", "configMap": {"name": "sink"}}]
    mounts = [{"name": "sink", "mountPath": "/sink", "readOnly": True}]
    if login:
        command += [f"--user={login[0]}", "--password-file=/sink-password/password"]
        volumes.append({"name": "password", "secret": {"secretName": login[1], "defaultMode": 0o440}})
        mounts.append({"name": "password", "mountPath": "/sink-password", "readOnly": True})
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "sink",
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": command,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "smtp", "containerPort": 2525}],
        "readinessProbe": {"tcpSocket": {"port": 2525}, "periodSeconds": 1},
        "securityContext": security,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}},
        "volumeMounts": mounts,
    }
    pod_security = {
        **{"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": pod_security,
        "containers": [container],
        "volumes": volumes,
    }
    ports = [{"name": name, "port": port} for name, port in (("http", 8080), ("smtp", 2525))]
    source = {"sink.py": Path(__file__).read_text(encoding="utf-8")}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": source},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "labels": labels}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports}},
    ]


def values(http: str = "sink:8080", smtp: str = "sink:2525", *, user: str = "", wait_seconds: int = 1) -> Any:
    """Return a chart's values that send everything to a sink at these addresses, and do not wait for long.

    The Secrets that they name are `sink-slack`, `sink-pagerduty` and, with a user, `sink-email`.
    """
    soon = {"wait_seconds": wait_seconds, "interval_seconds": wait_seconds}
    mail = {"username": user, "existing_secret": "sink-email"} if user else {}
    return {
        "notifications": {
            **soon,
            "slack": {"enabled": True, "existing_secret": "sink-slack", "port": int(http.rpartition(":")[2])},
            "email": {
                **{"enabled": True, "to": ["team@example.com"], "from": "jarvis@example.com", "smarthost": smtp},
                **{"require_tls": False, **mail, **soon},
            },
            "pagerduty": {
                **{"enabled": True, "existing_secret": "sink-pagerduty", "url": f"http://{http}/v2/enqueue"},
            },
        }
    }


def main() -> int:
    """Run until ended."""
    parser = argparse.ArgumentParser(description="A sink of notifications; see the top of this file.")
    parser.add_argument("--http", default="127.0.0.1:8080", help="where Slack and PagerDuty are spoken")
    parser.add_argument("--smtp", default="127.0.0.1:2525", help="where SMTP is spoken")
    parser.add_argument("--record", type=Path, help="file to append to")
    parser.add_argument("--user", help="who may send mail; without it, everybody")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--certificate", type=Path, help="PEM, for STARTTLS")
    parser.add_argument("--key", type=Path)
    options = parser.parse_args()
    login = tls = None
    if options.user:
        login = Login(options.user, options.password_file.read_text(encoding="utf-8").strip())
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve_forever(options.http, options.smtp, Record(options.record), login, tls))
    return 0


if __name__ == "__main__":
    sys.exit(main())
