"""How one seed's world behaves: each seed has its own mix of faults, so that no fault hides another for long."""

import contextlib
from dataclasses import dataclass, field
from unittest import mock

from crdt_service.loops import commit, exchange
from crdt_service.replication import outbox, repair

FAULTS = (
    "power_loss",
    "kill",
    "stop",
    "power_loss_amid_operation",
    "power_loss_everywhere",
    "block",
    "isolate",
    "cut",
    "disk_full",
    "sync_fails",
    "disk_slow",
    "clock_set",
)


@dataclass(frozen=True)
class Profile:
    latency_ms_max: int
    loss: float
    duplication: float
    recovery_loss: float
    step_ms_max: int
    skew_seconds_max: float
    drift_max: float
    sync_interval_seconds: float
    log_bytes_max: int
    keys: int
    fault_share: float
    burst_share: float
    faults: tuple[str, ...]
    limits: dict[str, int] = field(hash=False)


def draw_profile(randomness):
    """Return a profile."""
    return Profile(
        latency_ms_max=randomness.choice((1, 3, 20, 150)),
        loss=randomness.choice((0, 0, 0.003, 0.03)),
        duplication=randomness.choice((0, 0.05, 0.3)),
        recovery_loss=randomness.choice((0, 0.2)),
        step_ms_max=randomness.choice((2, 20, 60)),
        skew_seconds_max=randomness.choice((0, 0, 0.5, 70)),
        drift_max=randomness.choice((0, 0.001)),
        sync_interval_seconds=randomness.choice((0.3, 1.0, 3.0)),
        log_bytes_max=randomness.choice((400, 3000, 1 << 20)),
        keys=randomness.choice((1, 2, 8)),
        fault_share=randomness.choice((0.01, 0.04, 0.1)),
        burst_share=randomness.choice((0, 0.1, 0.3)),
        faults=tuple(sorted(randomness.sample(FAULTS, randomness.randint(1, len(FAULTS))))),
        limits={
            "batch_items": randomness.choice((3, 512)),
            "queue_items": randomness.choice((5, 20, 8192)),
            "outbox_bytes": randomness.choice((200, 2000, 8 << 20)),
            "push_bytes": randomness.choice((150, 1000, 1 << 20)),
            "slice_keys": randomness.choice((1, 3, 256)),
            "fetch_names": randomness.choice((1, 4, 4096)),
        },
    )


@contextlib.contextmanager
def limited(limits):
    """Shrink the constants that bound queues and parts, so that small worlds reach them too."""
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (commit, "BATCH_ITEMS_MAX", limits["batch_items"]),
            (commit, "QUEUE_ITEMS_MAX", limits["queue_items"]),
            (commit, "CHECKPOINT_SLICE_KEYS", limits["slice_keys"]),
            (outbox, "OUTBOX_BYTES_MAX", limits["outbox_bytes"]),
            (outbox, "PUSH_BYTES_MAX", limits["push_bytes"]),
            (repair, "PUSH_BYTES_MAX", limits["push_bytes"]),
            (exchange, "DIGEST_SLICE", limits["slice_keys"]),
            (exchange, "FETCH_NAMES_MAX", limits["fetch_names"]),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield
