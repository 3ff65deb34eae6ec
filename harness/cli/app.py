"""The five commands of the deployment guide."""

import math
import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from harness.checks.check import overall_of
from harness.checks.health import Health, Target, check_health
from harness.cli.deploy import deploy as deploy_config
from harness.cli.terminal import (
    DEGRADED,
    FAILED,
    MISUSED,
    exit_on_failure,
    exit_on_lost_output,
    say,
    show,
    show_result,
)
from harness.cluster.tool import find_tool
from harness.failure import Failure
from harness.kube import Kube, connect, report_thread
from harness.release.helm import Helm
from harness.release.name import NAMESPACE
from harness.release.record import Record, change_phase, now, read_record
from harness.release.removal import remove
from harness.release.status import read_status
from harness.report.render import Format
from harness.spec.config import Config, read_config, render_template

app = typer.Typer(
    help="Deploys Jarvis clusters, watches them and removes them.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_WEEK = 604_800


def _check(seconds: float) -> float:
    """Refuse NaN, which is in every range."""
    if math.isnan(seconds):
        raise typer.BadParameter("not a number")
    return seconds


ContextOption = Annotated[str | None, typer.Option("--context", help="The kubeconfig context to use.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="The namespace of the deployment.")]
FormatOption = Annotated[Format, typer.Option("--format", "-o", help="How the result is written.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=1, max=_WEEK, callback=_check, help="How long to wait at most, in seconds.")
]

_STATUS_CODE = {"ready": 0, "progressing": DEGRADED, "failed": FAILED}
_HEALTH_CODE = {"healthy": 0, "degraded": DEGRADED, "unhealthy": FAILED}


def main() -> None:
    """Run the command line; being asked to end counts as Ctrl-C, so that the record says what was cut off."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.excepthook = report_thread
    with exit_on_lost_output():
        app(prog_name="deployment_cli.py")


@app.command()
def template(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write a configuration with every key, its default and what it means."""
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(render_template())
    except FileExistsError:
        say(f"error: {file} exists already\nremedy: choose another name, or write over it with --force", "red")
        raise typer.Exit(MISUSED) from None
    except OSError as error:
        say(f"error: cannot write {file}: {error.strerror}", "red")
        raise typer.Exit(MISUSED) from None
    with exit_on_failure():
        show(f"{file} written; edit it, then: python deployment_cli.py deploy {file}\n")


@app.command()
def deploy(
    file: Annotated[Path, typer.Argument(help="The configuration.")],
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    form: FormatOption = Format.TABLE,
    timeout: TimeoutOption = 600,
) -> None:
    """Deploy a configuration; again, to change a deployment or to repair one that was cut off."""
    with exit_on_failure():
        config = read_config(file)
        for warning in config.warnings:
            say(f"warning: {warning}", "yellow")
        kube = connect(context or _context_of(config))
        helm = Helm(find_tool("helm"), kube.context, namespace)
        status = deploy_config(config, kube, helm, deadline_seconds=timeout, progress=say)
        show_result(status, form)
        raise typer.Exit(_STATUS_CODE[status.state])


@app.command()
def status(
    deployment_id: Annotated[str | None, typer.Option("--deployment-id", help="Which one is expected there.")] = None,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    form: FormatOption = Format.TABLE,
) -> None:
    """Tell what is deployed, and how far it has come."""
    with exit_on_failure():
        kube = connect(context)
        result = read_status(kube, namespace, _expect_record(kube, namespace, deployment_id))
        show_result(result, form)
        raise typer.Exit(_STATUS_CODE[result.state])


@app.command()
def health(
    continuous: Annotated[bool, typer.Option("--continuous", help="Check again and again until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=1, max=_WEEK, callback=_check, help="Seconds between two checks.")
    ] = 60,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    form: FormatOption = Format.TABLE,
) -> None:
    """Check the deployment's health: nodes, workloads, storage, API, and a write that reaches every node."""
    with exit_on_failure():
        target = Target(connect(context), namespace)
        code = _HEALTH_CODE[_report_health(target, form)]
        try:
            while continuous:
                time.sleep(interval)
                code = _HEALTH_CODE[_report_health(target, form)]
        except KeyboardInterrupt:
            say("stopped")
        raise typer.Exit(code)


@app.command()
def cleanup(
    deployment_id: Annotated[str, typer.Argument(help="The deployment's id, as `status` shows it.")],
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    form: FormatOption = Format.TABLE,
    timeout: TimeoutOption = 300,
) -> None:
    """Remove a deployment with all its data, and wait until it is gone."""
    with exit_on_failure():
        kube = connect(context)
        record = _expect_record(kube, namespace, deployment_id)
        helm = Helm(find_tool("helm"), kube.context, namespace)
        change_phase(kube, namespace, record, "removing")
        result = remove(kube, helm, record, deadline_seconds=timeout, progress=say)
        show_result(result, form)


def _context_of(config: Config) -> str | None:
    infrastructure = config.values["infrastructure"]
    return f"kind-{infrastructure['cluster_name']}" if infrastructure["provider"] == "kind" else None


def _expect_record(kube: Kube, namespace: str, deployment_id: str | None) -> Record:
    record = read_record(kube, namespace)
    place = f"the namespace {namespace} of context {kube.context}"
    if record is None:
        raise Failure(
            f"nothing is deployed in {place}",
            "name another --namespace or --context, or deploy: python deployment_cli.py deploy cluster-config.yaml",
        )
    if deployment_id is not None and deployment_id != record.id:
        raise Failure(f"{deployment_id} is not deployed in {place}; {record.id} is", "check the id, and the --context")
    return record


def _report_health(target: Target, form: Format) -> str:
    began = now()
    rows = list(check_health(target))
    result = Health(
        overall=overall_of(rows), time=began, context=target.kube.context, namespace=target.namespace, checks=rows
    )
    show_result(result, form)
    return result.overall
