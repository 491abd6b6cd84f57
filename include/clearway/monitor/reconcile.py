"""Retraining decisions that no release has taken: an event was lost, so it is sent again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clearway.monitor.decide import ManualRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDecision:
    """A decision as it lies in the store.

    Args:
        as_of: end of its newest window, ISO 8601 UTC; also of the data to use, if it was not asked for by hand.
        decided_at_s: when it was stored, Unix seconds; None for one stored without a time.
        request: what was granted; None for a decision on a batch.
    """

    evidence_digest: str
    batch_id: str
    as_of: str
    decided_at_s: float | None
    request: ManualRequest | None = None


def unclaimed(
    decisions: Sequence[StoredDecision], claimed: Collection[str], *, now_s: float, min_age_s: float
) -> tuple[StoredDecision, ...]:
    """Decisions to emit again, oldest first.

    Args:
        claimed: evidence digests that some release has taken.
        now_s: Unix seconds.
        min_age_s: younger ones may still be on their way. A decision without a time, or with one to come since the
            clock was set back, counts as old enough: emitting once more is harmless, since a claim is taken once, and
            losing one is not.
    """
    waiting = [
        d
        for d in decisions
        if d.evidence_digest not in claimed and (d.decided_at_s is None or not 0 <= now_s - d.decided_at_s < min_age_s)
    ]
    return tuple(sorted(waiting, key=lambda d: (d.batch_id, d.evidence_digest)))
