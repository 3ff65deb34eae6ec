"""Is it full?"""

from typing import Final

from harness.dashboard.board import Board, Row
from harness.dashboard.choice import JOB, NAMESPACE, PROCESS
from harness.dashboard.panel import Chart, Query, Stat, Unit
from harness.dashboard.promql import CHOSEN, NODES, quantile, rate, used_share

_PROCESSES: Final = f'job=~"$job", {CHOSEN}'
_ENGINE: Final = "jarvis_database_query_duration_seconds"
_LAG: Final = "jarvis_event_loop_lag_seconds"
_FULL: Final = ((0.8, "orange"), (0.9, "red"))
_LATE: Final = ((0.1, "orange"), (0.5, "red"))
_DISK_ERRORS: Final = f'kind=~"storage_full|disk_failed", {NODES}'
_FILES: Final = f"process_open_fds{{{_PROCESSES}}} / process_max_fds{{{_PROCESSES}}}"


def _bytes(state: str) -> str:
    return f'jarvis_storage_bytes{{state="{state}", {CHOSEN}}}'


_NOW: Final = Row(
    "Is it full?",
    (
        Stat(
            "Fullest volume",
            "Share of the fullest node's volume that is used. A node whose volume is full refuses writes.",
            Unit.SHARE,
            (Query(f"max({used_share(CHOSEN)})", "used"),),
            _FULL,
        ),
        Stat(
            "Least free space",
            "Free bytes of the volume with the fewest. The next snapshot has to fit beside the last.",
            Unit.BYTES,
            (Query(f"min({_bytes('free')})", "free"),),
        ),
        Stat(
            "Busiest process",
            "Processor time of the process that uses most, in cores.",
            Unit.CORES,
            (Query(f"max({rate('process_cpu_seconds_total', _PROCESSES)})", "cores"),),
        ),
        Stat(
            "Largest process",
            "Resident memory of the process that has most.",
            Unit.BYTES,
            (Query(f"max(process_resident_memory_bytes{{{_PROCESSES}}})", "resident"),),
        ),
        Stat(
            "Event loop lag, p99",
            "How late timers fire in the slowest process: what holds up all else. Too little CPU, or a long step.",
            Unit.SECONDS,
            (Query(f"max({quantile(0.99, _LAG, _PROCESSES, 'instance')})", "p99"),),
            _LATE,
        ),
        Stat(
            "Open files",
            "Share of the file descriptors that a process may open, of the one that has most of them open.",
            Unit.SHARE,
            (Query(f"max({_FILES})", "open"),),
            _FULL,
        ),
    ),
)
_DISK: Final = Row(
    "Disks of nodes",
    (
        Chart(
            "Volumes used",
            "Share of each node's volume that is used, by whatever it is.",
            Unit.SHARE,
            (Query(used_share(CHOSEN), "{{instance}}"),),
            _FULL,
            maximum=1,
        ),
        Chart(
            "Log and snapshot",
            "Bytes of each node's current log and newest snapshot. The log falls to nearly nothing with each snapshot; "
            "one that only rises is a checkpoint that fails.",
            Unit.BYTES,
            (Query(_bytes("log"), "log {{instance}}"), Query(_bytes("snapshot"), "snapshot {{instance}}")),
        ),
        Chart(
            "Free space",
            "Free bytes of each node's volume.",
            Unit.BYTES,
            (Query(_bytes("free"), "{{instance}}"),),
        ),
        Chart(
            "Disk latency, p99",
            "Time to sync a batch (append), to write a snapshot (checkpoint), and to replay the log (recover).",
            Unit.SECONDS,
            (Query(quantile(0.99, _ENGINE, NODES, "operation"), "{{operation}}"),),
        ),
        Chart(
            "Appends by node",
            "Batches of writes that were synced. Batches grow with the load, so this rises more slowly than writes.",
            Unit.PER_SECOND,
            (Query(rate(f"{_ENGINE}_count", f'operation="append", {NODES}'), "{{instance}}"),),
        ),
        Chart(
            "Disk errors",
            "Batches and snapshots that a full disk refused, and all other errors of disks.",
            Unit.PER_SECOND,
            (
                Query(
                    f"sum by (instance, kind) ({rate('jarvis_database_errors_total', _DISK_ERRORS)})",
                    "{{kind}} {{instance}}",
                ),
            ),
        ),
    ),
)
_PROCESS: Final = Row(
    "Processes",
    (
        Chart(
            "CPU",
            "Processor time of each process, in cores.",
            Unit.CORES,
            (Query(rate("process_cpu_seconds_total", _PROCESSES), "{{instance}}"),),
        ),
        Chart(
            "Memory",
            "Resident memory of each process. Nodes hold every key's state, so it follows the keys.",
            Unit.BYTES,
            (Query(f"process_resident_memory_bytes{{{_PROCESSES}}}", "{{instance}}"),),
        ),
        Chart(
            "Event loop lag by process, p99",
            "How late timers fire: what holds up all else in the process.",
            Unit.SECONDS,
            (Query(quantile(0.99, _LAG, _PROCESSES, "instance"), "{{instance}}"),),
            _LATE,
        ),
        Chart(
            "Open files by process",
            "Open file descriptors as a share of what the process may have: connections and feeds are most of them.",
            Unit.SHARE,
            (Query(_FILES, "{{instance}}"),),
            _FULL,
        ),
        Chart(
            "Garbage collections",
            "Collections of Python's oldest generation, which are the long ones.",
            Unit.PER_SECOND,
            (Query(rate("python_gc_collections_total", f'generation="2", {_PROCESSES}'), "{{instance}}"),),
        ),
        Chart(
            "Time of the last start",
            "What each node took to read its snapshot and replay its log; it grows with keys and log.",
            Unit.SECONDS,
            (Query(f'{_ENGINE}_sum{{operation="recover", {NODES}}}', "{{instance}}"),),
        ),
    ),
)

BOARD: Final = Board(
    "jarvis-system",
    "Jarvis: system",
    "Is it full? Disks, processors and memory of nodes and backends.",
    (NAMESPACE, JOB, PROCESS),
    (_NOW, _DISK, _PROCESS),
)
