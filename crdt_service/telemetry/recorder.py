"""Whether spans are recorded, as OpenTelemetry's standard environment variables say.

`OTEL_EXPORTER_OTLP_ENDPOINT` turns it on; the SDK also reads `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`,
`OTEL_EXPORTER_OTLP_*` and `OTEL_BSP_*`.
"""

from collections.abc import Mapping

from crdt_service.telemetry.trace import Recorder

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def make_recorder(variables: Mapping[str, str], *, service: str, instance: str, version: str) -> Recorder | None:
    """Return what records spans; None unless a collector is named.

    Args:
        variables: Environment variables.
        service: As collectors group processes: jarvis-backend or jarvis-crdt.
        instance: Name of this process among those of its service.
        version: Of the program.
    """
    if not any(variables.get(name) for name in _ENDPOINTS) or variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from crdt_service.telemetry.otlp import OtlpRecorder  # noqa: PLC0415 - nothing of it is paid for unless it is used.

    return OtlpRecorder(
        {
            "service.namespace": "jarvis",
            "service.name": service,
            "service.instance.id": instance,
            "service.version": version,
        }
    )
