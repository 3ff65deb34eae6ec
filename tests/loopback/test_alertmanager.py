"""The real Alertmanager, configured by the chart, tells a sink by all three protocols; ports and paths alone differ."""

import contextlib
import datetime
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from harness.cluster.tool import find_tool
from harness.process import run
from loadtests.authority import Authority
from loadtests.cluster import ROOT, free_port, wait_until
from tests.sink import values

_USER = "jarvis"
_LABELS = {"alertname": "JarvisNodeDown", "severity": "critical", "namespace": "jarvis-system"}
_ANNOTATIONS = {
    "summary": "jarvis-crdt-1 is down",
    "description": "It has not answered for a minute.",
    "runbook_url": "https://runbooks.example/JarvisNodeDown",
}


class Alerting:
    """Alertmanager and the sink that it tells, each its own process.

    Attributes:
        secrets: What each receiver is told of in a file, and nobody else may see.
    """

    def __init__(self, directory, *, tls):
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        self.http, self.smtp = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.secrets = {
            "slack": f"http://{self.http}/services/T0/B0/secret-of-slack",
            "email": "secret-of-mail",
            "pagerduty": "secret-of-pagerduty".ljust(32, "0"),
        }
        self.record = directory / "record.jsonl"
        self.log = directory / "alertmanager.log"
        self.authority = Authority(directory / "certificates") if tls else None
        self.processes = []

    def start(self):
        settings = values(self.http, self.smtp, user=_USER)
        if self.authority:
            settings["notifications"]["email"]["require_tls"] = True
            settings["notifications"]["ca_config_map"] = "authorities"
        arguments, variables = self._render(settings)
        for receiver, secret in self.secrets.items():
            folder = self.directory / "notifications" / receiver
            folder.mkdir(parents=True)
            # As an editor or `kubectl create secret --from-file` leaves it.
            (folder / "secret").write_text(f"{secret}\n")
        self._start_sink()
        with self.log.open("wb") as log:
            command = [str(find_tool("alertmanager")), *arguments, "--log.level=debug"]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=variables))
        wait_until(lambda: httpx.get(f"{self.url}/-/ready").is_success, "Alertmanager to be ready", self.log.read_text)

    def _render(self, settings):
        """Write the files of the ConfigMap; return the program's arguments and variables, for this machine."""
        helm = [str(find_tool("helm")), "template", "jarvis", str(ROOT / "charts/jarvis"), "--values=-"]
        manifests = list(yaml.safe_load_all(run(helm, input=json.dumps(settings)).stdout))
        ours = {m["kind"]: m for m in manifests if m and m["metadata"]["name"] == "jarvis-alertmanager"}
        folder = self.directory / "config"
        folder.mkdir()
        places = {
            "/etc/alertmanager": str(folder),
            "/etc/jarvis-notifications/ca": str(self.directory / "certificates"),
            "/etc/jarvis-notifications": str(self.directory / "notifications"),
            "--storage.path=/alertmanager": f"--storage.path={self.directory / 'data'}",
            "--web.listen-address=:9093": f"--web.listen-address={self.url.removeprefix('http://')}",
        }

        def move(text):
            for old, new in places.items():
                text = text.replace(old, new)
            return text

        for name, text in ours["ConfigMap"]["data"].items():
            (folder / name).write_text(move(text))
        [container] = ours["Deployment"]["spec"]["template"]["spec"]["containers"]
        variables = {each["name"]: move(each["value"]) for each in container.get("env", [])}
        return [move(argument) for argument in container["args"]], variables

    def _start_sink(self):
        password = self.directory / "notifications/email/secret"
        command = [sys.executable, str(ROOT / "tests/sink.py"), f"--http={self.http}", f"--smtp={self.smtp}"]
        command += [f"--record={self.record}", f"--user={_USER}", f"--password-file={password}"]
        if self.authority:
            files = self.authority.issue("localhost", "127.0.0.1")
            command += [f"--certificate={files.certificate}", f"--key={files.key}"]
        sink = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.processes.append(sink)
        assert b"listening\n" == sink.stdout.readline()

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait(60)
            if process.stdout:
                process.stdout.close()

    @contextlib.contextmanager
    def changed(self, **secrets):
        """Other secrets in the files until the block ends."""
        files = {name: self.directory / "notifications" / name / "secret" for name in secrets}
        for name, secret in secrets.items():
            files[name].write_text(secret)
        try:
            yield
        finally:
            for name, file in files.items():
                file.write_text(self.secrets[name])

    def fire(self, labels, *, for_seconds=3600):
        """Tell Alertmanager of an alert, as Prometheus does; a negative time has passed."""
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=for_seconds)
        alert = {"labels": labels, "annotations": _ANNOTATIONS, "endsAt": end.isoformat()}
        httpx.post(f"{self.url}/api/v2/alerts", json=[alert]).raise_for_status()

    def told(self, receiver):
        """What a receiver was told, in order."""
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [line for line in lines if line["receiver"] == receiver]

    def explain(self):
        return "\n".join([self.record.read_text() if self.record.exists() else "", self.log.read_text()[-4000:]])

    def await_told(self, receiver, number):
        wait_until(lambda: len(self.told(receiver)) >= number, f"notification {number} of {receiver}", self.explain)
        return self.told(receiver)[number - 1]


@pytest.fixture(scope="module", params=[True, False], ids=["tls", "plain"])
def alerting(tmp_path_factory, request):
    alerting = Alerting(tmp_path_factory.mktemp("alerting"), tls=request.param)
    with contextlib.ExitStack() as stack:
        stack.callback(alerting.stop)
        alerting.start()
        yield alerting


def test_an_alert_and_its_end_reach_each_receiver_and_the_secrets_nobody_else(alerting):
    firing, over = "[FIRING 1] JarvisNodeDown (critical) in jarvis-system", "[RESOLVED] JarvisNodeDown (critical)"
    text = f"{_ANNOTATIONS['summary']}\n{_ANNOTATIONS['description']}\nRunbook: {_ANNOTATIONS['runbook_url']}\n"

    alerting.fire(_LABELS)

    slack = alerting.await_told("slack", 1)
    [attachment] = slack["body"]["attachments"]
    assert "/services/T0/B0/secret-of-slack" == slack["path"]
    assert (firing, text, "danger") == (attachment["title"], attachment["text"], attachment["color"])
    assert _ANNOTATIONS["runbook_url"] == attachment["title_link"]

    event = alerting.await_told("pagerduty", 1)["body"]
    assert alerting.secrets["pagerduty"] == event["routing_key"]
    assert ("trigger", firing, "critical") == (
        event["event_action"],
        event["payload"]["summary"],
        event["payload"]["severity"],
    )
    assert [{"text": "Runbook", "href": _ANNOTATIONS["runbook_url"]}] == event["links"]

    mail = alerting.await_told("email", 1)
    assert (_USER, alerting.authority is not None) == (mail["user"], mail["tls"])
    assert ("jarvis@example.com", ["team@example.com"]) == (mail["from"], mail["to"])
    assert firing == mail["headers"]["Subject"]
    assert "Firing: 1\n" in mail["text"]
    assert "  jarvis-crdt-1 is down\n" in mail["text"]

    alerting.fire(_LABELS, for_seconds=-1)

    assert alerting.await_told("slack", 2)["body"]["attachments"][0]["title"].startswith(over)
    end = alerting.await_told("pagerduty", 2)["body"]
    assert ("resolve", event["dedup_key"]) == (end["event_action"], end["dedup_key"])
    assert "Resolved: 1\n" in alerting.await_told("email", 2)["text"]

    shown = httpx.get(f"{alerting.url}/api/v2/status").text
    seen = shown + alerting.log.read_text() + httpx.get(f"{alerting.url}/metrics").text
    for secret in alerting.secrets.values():
        assert secret not in seen


def test_a_changed_secret_is_used_without_a_restart(alerting):
    before = len(alerting.told("pagerduty"))
    with alerting.changed(pagerduty="1" * 32):
        alerting.fire({**_LABELS, "alertname": "Changed"})
        assert "1" * 32 == alerting.await_told("pagerduty", before + 1)["body"]["routing_key"]


def test_a_warning_is_held_back_while_the_critical_alert_of_its_name_fires_and_the_watchdog_always(alerting):
    kept = {**_LABELS, "alertname": "Kept"}
    alerting.fire(kept)
    wait_until(lambda: any("Kept" in str(each) for each in alerting.told("slack")), "the first", alerting.explain)
    alerting.fire({**kept, "severity": "warning"})
    alerting.fire({**_LABELS, "alertname": "JarvisWatchdog"})
    alerting.fire({**kept, "namespace": "another", "severity": "warning"})

    def titles():
        return [each["body"]["attachments"][0]["title"] for each in alerting.told("slack")]

    wait_until(lambda: any("another" in title for title in titles()), "the other namespace", alerting.explain)
    alerts = {
        (alert["labels"]["alertname"], alert["labels"]["severity"]): alert["status"]["state"]
        for alert in httpx.get(f"{alerting.url}/api/v2/alerts", params={"filter": 'namespace="jarvis-system"'}).json()
    }
    assert ("suppressed", "active") == (alerts["Kept", "warning"], alerts["JarvisWatchdog", "critical"])
    assert [] == [title for title in titles() if "Watchdog" in title]
    assert [] == [title for title in titles() if "Kept (warning) in jarvis-system" in title]


def test_receivers_that_fail_are_told_again_and_no_secret_is_logged(alerting):
    wrong = {
        "slack": f"http://127.0.0.1:{free_port()}/services/wrong-secret-of-slack",
        "email": "wrong-secret-of-mail",
        "pagerduty": "wrong-secret-of-pagerduty",
    }
    with alerting.changed(**wrong):
        alerting.fire({**_LABELS, "alertname": "Again"})
        for receiver in wrong:
            failure = f'alertmanager_notifications_failed_total{{integration="{receiver}"'

            def failed(failure=failure):
                lines = httpx.get(f"{alerting.url}/metrics").text.splitlines()
                return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(failure))

            wait_until(failed, f"{receiver} to fail", alerting.explain)
    for receiver in wrong:
        wait_until(
            lambda receiver=receiver: any("Again" in str(each) for each in alerting.told(receiver)),
            f"{receiver} to be told",
            alerting.explain,
        )

    assert [] == [line for line in alerting.log.read_text().splitlines() if "wrong-secret" in line]


def test_the_sink_is_one_file_of_the_standard_library(tmp_path):
    """Its pod has nothing else."""
    alone = tmp_path / "sink.py"
    alone.write_text(Path(ROOT / "tests/sink.py").read_text())

    assert 0 == run([sys.executable, "-I", "-S", str(alone), "--help"]).returncode
