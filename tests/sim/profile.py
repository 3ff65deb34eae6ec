"""How one seed's world behaves: each seed has its own mix of faults, so that no fault hides another for long."""

import contextlib
from dataclasses import dataclass, field, replace
from unittest import mock

from msgspec.msgpack import encode

from crdt_service.disk import journal
from crdt_service.loops import answer, anti_entropy, commit, placing
from crdt_service.replication import commits, repair, snapshot
from crdt_service.replication.garbage import HORIZON_SECONDS
from crdt_service.store import store, tombstones
from tests.sim.fault import CLOCK_SECONDS_MAX, FAR_SECONDS
from tests.sim.upheaval import UPHEAVALS

# Faults that hold messages or writes back last 5 s at most.
PURGING_SECONDS = 8.0
FAULTS = (
    "power_loss",
    "kill",
    "stop",
    "power_loss_amid_operation",
    "power_loss_everywhere",
    "block",
    "isolate",
    "partition",
    "cold_start",
    "cut",
    "disk_full",
    "sync_fails",
    "disk_slow",
    "clock_set",
    "clock_far",
    "lose_disk",
    "roll_back",
    "resize",
    "resize_twice",
    "abort",
    *UPHEAVALS,
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
    replication_factor: int
    quorum_share: float
    fault_share: float
    burst_share: float
    faults: tuple[str, ...]
    limits: dict[str, int] = field(hash=False)
    is_sealed: bool = False
    horizon_seconds: float = HORIZON_SECONDS
    deletion_share: float = 0.0
    read_share: float = 0.15
    two_types_share: float = 0.0

    @property
    def clock_error_seconds(self):
        """How far two clocks may be apart."""
        skew = max(self.skew_seconds_max, CLOCK_SECONDS_MAX if "clock_set" in self.faults else 0)
        far = FAR_SECONDS[-1] if "clock_far" in self.faults else 0
        return 2 * (skew + far + self.drift_max * 600)

    @property
    def is_purging(self):
        """Tell whether what is deleted is purged within the world's time."""
        return self.horizon_seconds < HORIZON_SECONDS


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
        replication_factor=randomness.choice((2, 3, 3, 7)),
        quorum_share=randomness.choice((0, 0.2, 0.8)),
        fault_share=randomness.choice((0.01, 0.04, 0.1)),
        burst_share=randomness.choice((0, 0.1, 0.3)),
        faults=tuple(sorted(randomness.sample(FAULTS, randomness.randint(1, len(FAULTS))))),
        limits={
            "batch_items": randomness.choice((3, 512)),
            "queue_items": randomness.choice((5, 20, 8192)),
            "commits_bytes": randomness.choice((200, 2000, 8 << 20)),
            "push_bytes": randomness.choice((150, 1000, 1 << 20)),
            "slice_keys": randomness.choice((1, 3, 256)),
            "fetch_names": randomness.choice((1, 4, 4096)),
            "allocated_bytes": randomness.choice((1, 512, 3000)),
            "tombstone_bytes": tombstones.TOMBSTONE_BYTES_MAX,
        },
        is_sealed=randomness.random() < 0.5,
        deletion_share=randomness.choice((0, 0.05, 0.2)),
    )


def hasten(profile, randomness, remembering_share):
    """Return the profile with a horizon that worlds outlive, longer than any message is under way, and fair clocks.

    But for a share of them, little or nothing of what was purged is remembered, so that a node that was away starts
    anew. That counts as a lost disk, and one of them is enough.
    """
    profile = replace(
        profile,
        horizon_seconds=PURGING_SECONDS,
        deletion_share=randomness.choice((0.05, 0.2)),
        step_ms_max=randomness.choice((200, 300)),
        fault_share=randomness.choice((0, 0.01, 0.03)),
        latency_ms_max=min(profile.latency_ms_max, 20),
        skew_seconds_max=min(profile.skew_seconds_max, 0.5),
        drift_max=0,
        faults=_without(profile, "clock_set", "clock_far"),
    )
    if randomness.random() < remembering_share:
        return profile
    profile.limits["tombstone_bytes"] = randomness.choice((0, 300))
    return replace(profile, faults=_without(profile, "lose_disk", "roll_back", "flip_tail", "accept_loss"))


def _without(profile, *faults):
    return tuple(kind for kind in profile.faults if kind not in faults) or ("kill",)


def _remember(follow):
    """Return `follow` with what it has returned before: every process of a world follows the same documents."""
    known = {}

    def follow_again(document):
        key = encode(document)
        if key not in known:
            known[key] = follow(document)
        return known[key]

    return follow_again


@contextlib.contextmanager
def limited(limits):
    """Shrink the constants that bound queues and parts, so that small worlds reach them too."""
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (commit, "BATCH_ITEMS_MAX", limits["batch_items"]),
            (commit, "QUEUE_ITEMS_MAX", limits["queue_items"]),
            (commit, "CHECKPOINT_SLICE_KEYS", limits["slice_keys"]),
            (commits, "LOG_BYTES_MAX", limits["commits_bytes"]),
            (commits, "PUSH_BYTES_MAX", limits["push_bytes"]),
            (repair, "PUSH_BYTES_MAX", limits["push_bytes"]),
            (snapshot, "PUSH_BYTES_MAX", limits["push_bytes"]),
            (answer, "PUSH_BYTES_MAX", limits["push_bytes"]),
            (tombstones, "PAGE_BYTES_MAX", limits["push_bytes"]),
            (tombstones, "TOMBSTONE_BYTES_MAX", limits["tombstone_bytes"]),
            (commit, "CHECKPOINT_SLICE_BYTES", limits["push_bytes"]),
            (repair, "ANSWER_KEYS_MAX", limits["slice_keys"]),
            (repair, "NODES_MAX", limits["fetch_names"]),
            (store, "STALE_KEYS_MAX", limits["slice_keys"]),
            (store, "SCANNED_KEYS_MAX", limits["slice_keys"]),
            (anti_entropy, "DIGEST_SLICE", limits["slice_keys"]),
            (anti_entropy, "FETCH_NAMES_MAX", limits["fetch_names"]),
            (journal, "ALLOCATED_BYTES", limits["allocated_bytes"]),
            (placing, "GATHER_SECONDS", 1.0),
            (placing, "SILENT_SECONDS_MAX", 10.0),
            (placing, "follow_document", _remember(placing.follow_document)),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield
