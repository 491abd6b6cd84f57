"""Land the batches of a window: cut, check, write once, publish; refuse what is late, short, doubled or misshapen."""

from datetime import datetime

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Verdict
from clearway.infra.clock import format_instant, parse_instant
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.raw_windows import LandedBatch, RawWindow, write_window
from clearway.ingest.spec import Inputs, Outputs
from clearway.product import LoadedProduct

# Batches that a reason describes one by one; the log has all.
MAX_NOTES = 3


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Land every whole interval inside [start, end).

    PASS: all of them are in the ledger. FAIL: at least one was quarantined; the others are landed. INCONCLUSIVE: a file
    is not there yet.
    Raises: BatchConflict when a landed batch comes back with other bytes, ConfigError for an empty window.
    """
    from clearway.ingest.landing import Landing  # noqa: PLC0415 - pyarrow

    intervals = _intervals(inputs, product)
    landing = Landing.open(product, env, window=[product.spec.batch.batch_id(start) for start, _ in intervals])
    results = [landing.land(start=start, end=end) for start, end in intervals]
    fault("ingest.before_window")
    batches = tuple(LandedBatch(batch_id=r.batch_id, digest=r.digest) for r in results if r.digest is not None)
    window = RawWindow(
        product=product.name,
        start=format_instant(intervals[0][0]),
        end=format_instant(intervals[-1][1]),
        batches=batches,
    )
    refusals = [r.reason for r in results if r.digest is None]
    notes = [r.reason for r in results if r.digest is not None and r.reason][:MAX_NOTES]
    counts = f"{len(batches)} batches landed, {sum(r.is_new for r in results)} of them new"
    verdicts = {r.verdict for r in results}
    verdict = next(v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS) if v in verdicts)
    return Outputs(
        verdict=verdict,
        reason="; ".join(refusals or [counts, *notes]),
        raw=write_window(landing.storage, landing.layout, window) if batches else None,
        end=window.end,
        num_batches=len(batches),
        num_new=sum(r.is_new for r in results),
    )


def _intervals(inputs: Inputs, product: LoadedProduct) -> list[tuple[datetime, datetime]]:
    clock = product.spec.batch
    start, end = parse_instant(inputs.start), parse_instant(inputs.end)
    if start < clock.first:
        raise ConfigError(
            f"window starts {inputs.start}, before the first batch {format_instant(clock.first)}; start there or later"
        )
    intervals = clock.intervals(start, end)
    if not intervals:
        raise ConfigError(
            f"window [{inputs.start}, {inputs.end}) holds no whole {clock.every}; end it a {clock.every} later"
        )
    return intervals
