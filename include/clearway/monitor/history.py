"""What earlier batches left behind: their summaries and the decisions made on them, read from the store alone."""

import json

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.monitor.carried import Carried
from clearway.monitor.decide import Decision, ManualRequest, PastDecision, Window, look_back
from clearway.monitor.reconcile import StoredDecision
from clearway.monitor.summary import Summary
from clearway.product import Batch
from clearway.product_monitor import Monitor

SUMMARY = "summary.json"
# Batches without a summary over which counts go on.
MAX_GAP = 8
CLAIM_SUFFIX = ".claim.json"


def batches_before(clock: Batch, batch_id: str, *, num_batches: int) -> list[str]:
    """The `num_batches` batch ids before this one, oldest first; fewer at the beginning of the data."""
    found: list[str] = []
    start = clock.start_of(batch_id)
    while len(found) < num_batches and start > clock.first:
        start = clock.back(start, 1)
        found.append(clock.batch_id(start))
    return found[::-1]


def earlier_windows(storage: Storage, layout: Layout, clock: Batch, policy: Monitor, *, batch_id: str) -> list[Window]:
    """As many windows before this batch as the policy looks back, without gaps; reads that many files, no history."""
    windows = []
    for earlier in batches_before(clock, batch_id, num_batches=look_back(policy) - 1):
        summary = read_summary(storage, layout, earlier)
        windows.append(summary.window if summary else Window(batch_id=earlier))
    return windows


def state_before(storage: Storage, layout: Layout, clock: Batch, batch_id: str) -> tuple[Carried, int]:
    """What the newest of the last MAX_GAP summaries handed on, and how many batches ago; a fresh state after a longer
    silence, which has nothing to say about now."""
    for passed, earlier in enumerate(reversed(batches_before(clock, batch_id, num_batches=MAX_GAP)), start=1):
        summary = read_summary(storage, layout, earlier)
        if summary is not None:
            return summary.carried, passed
    return Carried(), 1


def read_summary(storage: Storage, layout: Layout, batch_id: str) -> Summary | None:
    """The summary of a batch, or None if it was never measured."""
    try:
        return Summary.from_json(storage.read(layout.monitor(batch_id, SUMMARY)))
    except FileNotFoundError:
        return None


def store_decision(
    storage: Storage,
    layout: Layout,
    decision: Decision,
    newest: Window,
    *,
    as_of: str,
    now_s: float,
    request: ManualRequest | None = None,
) -> bool:
    """Keep a retraining decision; False if the same evidence was decided before. `now_s`: Unix seconds."""
    document = {
        "evidence_digest": decision.evidence_digest,
        "model_digest": newest.model_digest,
        "batch_id": newest.batch_id,
        "as_of": as_of,
        "signals": [s.value for s in decision.signals],
        "reasons": list(decision.reasons),
        "overridden": [o.value for o in decision.overridden],
        "request": to_jsonable(request) if request else None,
        "decided_at_s": now_s,
    }
    return storage.create(layout.decision(decision.evidence_digest), canonical_json(document))


def stored_decisions(storage: Storage, layout: Layout) -> tuple[list[StoredDecision], set[str]]:
    """Every decision, oldest batch first, and the evidence digests that a release has claimed."""
    folder = layout.decision("any").rpartition("/")[0]
    uris = storage.list(folder)
    claimed = {_name(uri).removesuffix(CLAIM_SUFFIX) for uri in uris if uri.endswith(CLAIM_SUFFIX)}
    found = [json.loads(storage.read(uri)) for uri in uris if not uri.endswith(CLAIM_SUFFIX)]
    decisions = [
        StoredDecision(
            evidence_digest=d["evidence_digest"],
            batch_id=d["batch_id"],
            as_of=d["as_of"],
            decided_at_s=d.get("decided_at_s"),
            request=from_jsonable(ManualRequest, d["request"]) if d.get("request") else None,
        )
        for d in found
    ]
    return sorted(decisions, key=lambda d: (d.batch_id, d.evidence_digest)), claimed


def past_decisions(storage: Storage, layout: Layout) -> list[PastDecision]:
    """Every decision, as the rule wants it."""
    decisions, _ = stored_decisions(storage, layout)
    return [PastDecision(evidence_digest=d.evidence_digest, batch_id=d.batch_id, as_of=d.as_of) for d in decisions]


def label_batches(clock: Batch, batch_id: str, *, delay_days: int) -> list[str]:
    """Batches whose rows the labels of this one may belong to: itself, and back over the delay."""
    start = clock.start_of(batch_id)
    first = clock.back(start, delay_days)
    return [clock.batch_id(s) for s, _ in clock.intervals(first, clock.end_of(start))]


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
