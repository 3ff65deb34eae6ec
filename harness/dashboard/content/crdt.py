"""Is it converging?"""

from typing import Final

from harness.dashboard.board import Board, Row
from harness.dashboard.choice import NAMESPACE, NODE
from harness.dashboard.panel import Chart, Heatmap, Query, Stat, Unit
from harness.dashboard.promql import CHOSEN, buckets, or_zero, quantile, rate

_LATENCY: Final = "jarvis_crdt_sync_latency_seconds"
_LATENCY_STEPS: Final = ((0.5, "orange"), (1.0, "red"))

_NOW: Final = Row(
    "Is it converging?",
    (
        Stat(
            "Sync latency, p99",
            "99 of 100 changes were applied on another node within this time of their commit. Empty while nothing is "
            "written.",
            Unit.SECONDS,
            (Query(quantile(0.99, _LATENCY, CHOSEN), "p99"),),
            _LATENCY_STEPS,
        ),
        Stat(
            "Changes applied",
            "Changes from other nodes that were applied, a second, over all nodes.",
            Unit.PER_SECOND,
            (Query(f"sum({rate(f'{_LATENCY}_count', CHOSEN)})", "applied"),),
        ),
        Stat(
            "Conflicts",
            "Concurrent writes that joined others, a second. Many of them: agents that write the same keys at once.",
            Unit.PER_SECOND,
            (Query(or_zero(f"sum({rate('jarvis_crdt_conflicts_total', CHOSEN)})"), "conflicts"),),
            ((1, "orange"), (10, "red")),
        ),
        Stat(
            "Under-replicated keys",
            "Keys with an owner that is unreachable. They are served; losing another owner may make some missing.",
            Unit.COUNT,
            (Query(f"sum(jarvis_under_replicated_keys{{{CHOSEN}}})", "keys"),),
            ((1, "orange"),),
        ),
        Stat(
            "Slots to hand over",
            "Slots of keys that nodes hold for other owners. After nodes came or went it has to fall to 0.",
            Unit.COUNT,
            (Query(f"sum(jarvis_handoff_slots{{{CHOSEN}}})", "slots"),),
            ((1, "yellow"),),
        ),
        Stat(
            "Refused changes",
            "Changes from peers that were refused in the time shown: they broke a rule, or no clock can have made "
            "their stamps. Any is a peer that is broken.",
            Unit.COUNT,
            (
                Query(
                    f"sum(increase(jarvis_deltas_refused_total{{{CHOSEN}}}[$__range])) + "
                    f"sum(increase(jarvis_clock_refused_total{{{CHOSEN}}}[$__range]))",
                    "refused",
                ),
            ),
            ((1, "red"),),
        ),
    ),
)
_REPLICATION: Final = Row(
    "Replication",
    (
        Chart(
            "Sync latency",
            "From a change's commit at its origin to its apply on another node, by both nodes' wall clocks: clocks "
            "that differ are in it.",
            Unit.SECONDS,
            tuple(Query(quantile(share, _LATENCY, CHOSEN), f"p{share * 100:g}") for share in (0.5, 0.9, 0.99)),
            _LATENCY_STEPS,
        ),
        Heatmap(
            "Sync latency, all changes",
            "How many changes took how long. A second band far above the first is a node that was away.",
            Unit.SECONDS,
            (Query(buckets(_LATENCY, CHOSEN), "{{le}}"),),
        ),
        Chart(
            "Sync latency by node, p99",
            "By the node that applied. One line above the others is that node, or its network.",
            Unit.SECONDS,
            (Query(quantile(0.99, _LATENCY, CHOSEN, "instance"), "{{instance}}"),),
            _LATENCY_STEPS,
        ),
        Chart(
            "Changes applied by node",
            "Changes from other nodes that each node applied. A node at 0 while others are not is cut off.",
            Unit.PER_SECOND,
            (Query(f"sum by (instance) ({rate(f'{_LATENCY}_count', CHOSEN)})", "{{instance}}"),),
        ),
        Chart(
            "Bytes of digest exchanges",
            "What comparing and repairing moves. Little while pushes arrive; much after a node was away.",
            Unit.BYTES_PER_SECOND,
            (Query(rate("jarvis_antientropy_bytes_total", CHOSEN), "{{instance}}"),),
        ),
        Chart(
            "Conflicts by type",
            "Concurrent writes that joined others, by data type and the strategy that decides them.",
            Unit.PER_SECOND,
            (
                Query(
                    or_zero(f"sum by (type, strategy) ({rate('jarvis_crdt_conflicts_total', CHOSEN)})", "type"),
                    "{{type}} {{strategy}}",
                ),
            ),
            ((10, "red"),),
        ),
    ),
)
_REPAIR: Final = Row(
    "Repair",
    (
        Chart(
            "Under-replicated keys by node",
            "Keys of which the node is the first reachable owner, and another owner is unreachable.",
            Unit.COUNT,
            (Query(f"jarvis_under_replicated_keys{{{CHOSEN}}}", "{{instance}}"),),
            ((1, "orange"),),
        ),
        Chart(
            "Slots to hand over by node",
            "Slots that the node holds and does not own. It keeps them until every owner has confirmed to hold all.",
            Unit.COUNT,
            (Query(f"jarvis_handoff_slots{{{CHOSEN}}}", "{{instance}}"),),
        ),
        Chart(
            "Refused changes by node",
            "Changes from peers that broke a rule, and those with stamps that no clock can have made.",
            Unit.PER_SECOND,
            (
                Query(rate("jarvis_deltas_refused_total", CHOSEN), "rule {{instance}}"),
                Query(rate("jarvis_clock_refused_total", CHOSEN), "clock {{instance}}"),
            ),
        ),
        Chart(
            "Clock offset by node",
            "How far the node's clock is ahead of that of the member from which it differs most, negative if it is "
            "behind. The line whose sign the others do not have is the clock that is wrong.",
            Unit.SECONDS,
            (Query(f"jarvis_clock_offset_seconds{{{CHOSEN}}}", "{{instance}}"),),
        ),
    ),
)
_KEYS: Final = Row(
    "Keys",
    (
        Chart(
            "Live keys by node",
            "Keys with a value. Where every node owns every key, lines that stay apart are nodes that have not met.",
            Unit.COUNT,
            (Query(f'jarvis_keys{{state="live", {CHOSEN}}}', "{{instance}}"),),
        ),
        Chart(
            "Vacant keys by node",
            "Deleted keys of which history is left. Purged a day later, once all members agree: a line that only "
            "rises is a member that does not.",
            Unit.COUNT,
            (Query(f'jarvis_keys{{state="vacant", {CHOSEN}}}', "{{instance}}"),),
        ),
        Chart(
            "Purged keys by node",
            "Vacant keys that were forgotten.",
            Unit.PER_SECOND,
            (Query(rate("jarvis_purged_keys_total", CHOSEN), "{{instance}}"),),
        ),
    ),
)

BOARD: Final = Board(
    "jarvis-crdt",
    "Jarvis: CRDT",
    "Is it converging? How soon changes reach the other nodes, what repairs move, and what is in conflict.",
    (NAMESPACE, NODE),
    (_NOW, _REPLICATION, _REPAIR, _KEYS),
)
