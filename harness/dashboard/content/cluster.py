"""Is it healthy?"""

from typing import Final

from harness.dashboard.board import Board, Row
from harness.dashboard.choice import NAMESPACE
from harness.dashboard.panel import Chart, Query, Stat, Timeline, Unit
from harness.dashboard.promql import CLUSTER, CLUSTER_REQUESTS, error_share, or_zero, quantile, rate, used_share

_TARGETS: Final = f'job=~"jarvis-(backend|crdt)", {CLUSTER}'
_FIRING: Final = f'alertstate="firing", alertname=~"Jarvis.*", alertname!="JarvisWatchdog", {CLUSTER}'
_EXPIRY: Final = f"jarvis_certificate_expiry_timestamp_seconds{{{CLUSTER}}} - time()"
_NO_TLS: Final = (("-1", "no TLS"),)
_DAY: Final = 86_400

_NOW: Final = Row(
    "Is it healthy?",
    (
        Stat(
            "Alerts firing",
            "Alerts of Jarvis that fire now, but for the watchdog, which always does. Each has a runbook.",
            Unit.COUNT,
            (Query(or_zero(f"count(ALERTS{{{_FIRING}}})"), "firing"),),
            ((1, "red"),),
        ),
        Stat(
            "Targets down",
            "Processes that Prometheus knows and cannot reach. A pod that is gone is no target any more: the members "
            "below tell of it.",
            Unit.COUNT,
            (Query(or_zero(f"count(up{{{_TARGETS}}} == 0)"), "down"),),
            ((1, "red"),),
        ),
        Stat(
            "Nodes up",
            "Nodes that Prometheus reaches, out of infrastructure.node_count.",
            Unit.COUNT,
            (Query(or_zero(f'sum(up{{job="jarvis-crdt", {CLUSTER}}})'), "nodes"),),
            ((1, "green"),),
            base="red",
        ),
        Stat(
            "Backends up",
            "Backends that Prometheus reaches. Without any there is no API.",
            Unit.COUNT,
            (Query(or_zero(f'sum(up{{job="jarvis-backend", {CLUSTER}}})'), "backends"),),
            ((1, "green"),),
            base="red",
        ),
        Stat(
            "Members suspect or dead",
            "The most members that any process holds for suspect or dead. A process cut off sees all others so.",
            Unit.COUNT,
            (Query(f'max(sum by (instance) (jarvis_members{{state=~"suspect|dead", {CLUSTER}}}))', "members"),),
            ((1, "red"),),
        ),
        Stat(
            "Under-replicated keys",
            "Keys with an owner that is unreachable. They are served; losing another owner may make some missing.",
            Unit.COUNT,
            (Query(f"sum(jarvis_under_replicated_keys{{{CLUSTER}}})", "keys"),),
            ((1, "orange"),),
        ),
        Stat(
            "Server errors",
            "Share of the API's requests answered with 5xx, probes and scrapes left out.",
            Unit.SHARE,
            (Query(error_share(CLUSTER_REQUESTS), "errors"),),
            ((0.01, "orange"), (0.1, "red")),
        ),
        Stat(
            "Sync latency, p99",
            "99 of 100 changes were applied on another node within this time of their commit. Empty while nothing is "
            "written.",
            Unit.SECONDS,
            (Query(quantile(0.99, "jarvis_crdt_sync_latency_seconds", CLUSTER), "p99"),),
            ((0.5, "orange"), (1, "red")),
        ),
        Stat(
            "Fullest volume",
            "Share of the fullest node's volume that is used. A node whose volume is full refuses writes.",
            Unit.SHARE,
            (Query(f"max({used_share(CLUSTER)})", "used"),),
            ((0.8, "orange"), (0.9, "red")),
        ),
        Stat(
            "Slots to hand over",
            "Slots of keys that nodes hold for other owners. After nodes came or went it has to fall to 0.",
            Unit.COUNT,
            (Query(f"sum(jarvis_handoff_slots{{{CLUSTER}}})", "slots"),),
            ((1, "yellow"),),
        ),
        Stat(
            "Plugins not working",
            "Configured plugins that fail or are disabled, over all processes.",
            Unit.COUNT,
            (Query(f'sum(jarvis_plugins{{state!="active", {CLUSTER}}})', "plugins"),),
            ((1, "red"),),
        ),
        Stat(
            "First certificate to expire",
            "Time until the first of the certificates in use expires. A job renews each when a third of its lifetime "
            "is left.",
            Unit.SECONDS,
            (Query(f"min({_EXPIRY}) or on() vector(-1)", "left"),),
            ((14 * _DAY, "orange"), (30 * _DAY, "green")),
            base="red",
            texts=_NO_TLS,
        ),
    ),
)
_MEMBERS: Final = Row(
    "Members",
    (
        Timeline(
            "Reached by Prometheus",
            "When each process answered scrapes. A line that ends is a pod that is gone.",
            Unit.COUNT,
            (Query(f"up{{{_TARGETS}}}", "{{instance}}"),),
            ((1, "green"),),
            base="red",
        ),
        Chart(
            "Members by state",
            "The most members that any process holds to be in a state. Suspect members are alive or dead within "
            "seconds; a dead one stays so until its pod is back.",
            Unit.COUNT,
            (Query(f"max by (state) (jarvis_members{{{CLUSTER}}})", "{{state}}"),),
        ),
        Chart(
            "Members alive, as each process knows them",
            "Lines that differ for longer than some gossip rounds are a network that is cut.",
            Unit.COUNT,
            (Query(f'jarvis_members{{state="alive", {CLUSTER}}}', "{{instance}}"),),
        ),
        Chart(
            "Links between nodes",
            "Addresses that nodes dial, by state. Refused ones have another secret or certificate.",
            Unit.COUNT,
            (Query(f"sum by (state) (jarvis_links{{{CLUSTER}}})", "{{state}}"),),
            stacked=True,
        ),
        Chart(
            "Uptime",
            "Time since each process started; a line that falls is a restart.",
            Unit.SECONDS,
            (Query(f"time() - process_start_time_seconds{{{_TARGETS}}}", "{{instance}}"),),
        ),
        Chart(
            "Versions",
            "Processes by version: two of them while a rollout is under way.",
            Unit.COUNT,
            (Query(f"count by (version) (jarvis_build_info{{{CLUSTER}}})", "{{version}}"),),
            stacked=True,
        ),
    ),
)
_PLUGINS: Final = Row(
    "Plugins and certificates",
    (
        Chart(
            "Plugins by state",
            "Configured plugins over all processes. One that keeps failing is disabled until its process restarts.",
            Unit.COUNT,
            (Query(f"sum by (state) (jarvis_plugins{{{CLUSTER}}})", "{{state}}"),),
            stacked=True,
        ),
        Chart(
            "Plugin failures",
            "How often plugins raised, hung, ended or could not start.",
            Unit.PER_SECOND,
            (
                Query(
                    or_zero(f"sum by (plugin) ({rate('jarvis_plugin_failures_total', CLUSTER)})", "plugin"),
                    "{{plugin}}",
                ),
            ),
        ),
        Chart(
            "Certificates are valid for",
            "Time left of each certificate in use, the least of all processes. A line that does not jump up before its "
            "last third is a renewal that fails. -1 without TLS.",
            Unit.SECONDS,
            (Query(f"min by (certificate) ({_EXPIRY}) or on() vector(-1)", "{{certificate}}"),),
        ),
    ),
)

BOARD: Final = Board(
    "jarvis-cluster",
    "Jarvis: cluster",
    "Is it healthy? What Prometheus reaches, what members know of each other, and the numbers that must not be bad.",
    (NAMESPACE,),
    (_NOW, _MEMBERS, _PLUGINS),
)
