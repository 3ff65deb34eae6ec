"""What becomes of the authority and of certificates as time passes: pure steps from what is stored to what should be.

An authority is replaced in two steps, so that nobody meets a certificate whose authority is not trusted yet: first the
new one is trusted beside the old one, and in a later run, when every process has read that, it signs.
"""

import contextlib
import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from crdt_service.certificates.issue import Pair, Wanted, is_due, is_whole, issue, make_authority, serves

# Kubernetes takes up to two minutes to show pods a changed Secret.
SETTLING = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """What the authority's Secret holds.

    Attributes:
        current: What signs.
        following: What will sign next; until then it is trusted alone. None when no change is near.
        bundle: PEM certificates of all that are trusted: these, and older ones that have not expired.
    """

    current: Pair
    following: Pair | None
    bundle: bytes


def step_authority(stored: Authority | None, now: datetime.datetime) -> Authority:
    """Return the authority as it should be now; what is fine stays as it is."""
    if stored is None or not _is_usable(stored):
        current = make_authority(now)
        return Authority(current, None, _join_bundle([current], stored.bundle if stored else b"", now))
    current, following = stored.current, stored.following
    if following is not None and _may_sign(following, current, now):
        current, following = following, None
    elif following is None and is_due(current.parse(), now):
        following = make_authority(now)
        if current.parse().not_valid_after_utc <= now:  # Nothing trusts it any more, so there is nothing to wait for.
            current, following = following, None
    trusted = [current, *([following] if following else [])]
    return Authority(current, following, _join_bundle(trusted, stored.bundle, now))


def step_certificate(stored: Pair | None, authority: Authority, wanted: Wanted, now: datetime.datetime) -> Pair:
    """Return a certificate as it should be now: the stored one while it serves and more than a third is left."""
    if stored is not None and serves(stored, authority.current, wanted) and not is_due(stored.parse(), now):
        return stored
    return issue(authority.current, wanted, now)


def _is_usable(stored: Authority) -> bool:
    return is_whole(stored.current) and (stored.following is None or is_whole(stored.following))


def _may_sign(following: Pair, current: Pair, now: datetime.datetime) -> bool:
    has_settled = following.parse().not_valid_before_utc + SETTLING <= now
    return has_settled or current.parse().not_valid_after_utc <= now


def _join_bundle(trusted: list[Pair], before: bytes, now: datetime.datetime) -> bytes:
    """Return the bundle: what is trusted now first, then what was and has not expired; order and bytes are stable."""
    certificates = [pair.parse() for pair in trusted]
    with contextlib.suppress(ValueError):
        certificates += x509.load_pem_x509_certificates(before)
    unique = dict.fromkeys(certificate for certificate in certificates if certificate.not_valid_after_utc > now)
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in unique)
