"""Requests for a retraining by hand: what is asked, and the answer of the product's policy, given once."""

import json
import re
from collections.abc import Mapping
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.clock import format_instant
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, open_storage
from clearway.monitor.decide import Answer, ManualRequest, Window, decide
from clearway.monitor.history import (
    MAX_GAP,
    batches_before,
    earlier_windows,
    past_decisions,
    read_summary,
    store_decision,
)
from clearway.product import LoadedProduct, Product
from clearway.product_monitor import Override


def read_request(raw: Mapping[str, Any], *, day: str) -> ManualRequest:
    """What an event asks for. A word for an override that nobody knows sets nothing aside.

    Args:
        raw: texts `as_of`, `reason`, `override` (words with commas), `evidence_digest`, all optional.
        day: of the event. One that brings no digest of its own is told from others by its content and its day.
    """
    given = str(raw.get("evidence_digest") or "")
    as_of, reason, override = (str(raw.get(key) or "") for key in ("as_of", "reason", "override"))
    words = {word.strip() for word in override.split(",")}
    content = {"as_of": as_of, "reason": reason, "override": sorted(words), "id": given, "day": day}
    return ManualRequest(
        digest=given if re.fullmatch("[0-9a-f]{64}", given) else sha256_of(canonical_json(content)),
        as_of=as_of,
        reason=reason,
        override=tuple(o for o in Override if o.value in words),
    )


def refusal_of(env: Environment, product: LoadedProduct, request: ManualRequest, *, now_s: float) -> str:
    """Why a request is not granted, or "". Decided at the first call; a granted one is a stored decision from then on.

    Args: now_s: Unix seconds.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    if storage.exists(layout.decision(request.digest)):
        return ""
    if not storage.exists(layout.refusal(request.digest)):
        windows, as_of = _windows(storage, layout, product.spec)
        past = past_decisions(storage, layout)
        decision = decide(windows, past, product.spec.monitor, product=product.name, as_of=as_of, request=request)
        if decision.answer is Answer.RETRAIN:
            store_decision(storage, layout, decision, windows[-1], as_of=as_of, now_s=now_s, request=request)
            return ""
        document = {
            "request": to_jsonable(request),
            "answer": decision.answer.value,
            "reasons": list(decision.reasons),
            "batch_id": windows[-1].batch_id,
            "refused_at_s": now_s,
        }
        storage.create(layout.refusal(request.digest), canonical_json(document))
    found = json.loads(storage.read(layout.refusal(request.digest)))
    return f"{found['answer']}: {'; '.join(found['reasons'])}"


def _windows(storage: Storage, layout: Layout, spec: Product) -> tuple[list[Window], str]:
    """What was seen up to the newest measured batch, and when that ended; one empty window where nothing was."""
    clock = spec.batch
    landed = [_name(uri) for uri in storage.list(layout.ledger_entry("any").rpartition("/")[0])]
    newest = max(landed, default=clock.batch_id(clock.back(spec.release.first_end, 1)))
    for batch_id in (newest, *reversed(batches_before(clock, newest, num_batches=MAX_GAP))):
        summary = read_summary(storage, layout, batch_id)
        if summary is not None:
            earlier = earlier_windows(storage, layout, clock, spec.monitor, batch_id=batch_id)
            return [*earlier, summary.window], summary.as_of
    return [Window(batch_id=newest)], format_instant(clock.end_of(clock.start_of(newest)))


def _name(uri: str) -> str:
    return uri.rpartition("/")[2].removesuffix(".json")
