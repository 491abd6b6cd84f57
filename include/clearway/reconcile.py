"""What a crash between two systems left undone, over all stages of one product. Safe to run at any time, and again."""

from typing import Any

from clearway.contracts.errors import Unavailable
from clearway.infra.clock import Clock, SystemClock
from clearway.infra.environment import Environment
from clearway.infra.jobs.local import LocalJobs
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct

# An event needs seconds to become a run, and a run seconds to claim its evidence; a minute is well above both.
LOST_AFTER_S = 60.0
# A retry re-attaches within seconds, a restarted scheduler within minutes; a job unwatched for longer has no owner.
UNWATCHED_AFTER_S = 900.0


def lost_decisions(env: Environment, product: LoadedProduct, *, clock: Clock | None = None) -> list[dict[str, Any]]:
    """Retraining decisions that no release has claimed, as the payloads of the events to send again, oldest first."""
    from clearway.monitor.history import stored_decisions  # noqa: PLC0415 - each part is optional for the others
    from clearway.monitor.reconcile import unclaimed  # noqa: PLC0415

    decisions, claimed = stored_decisions(open_storage(env.store_root), Layout(env.store_root, product.name))
    now_s = (clock or SystemClock()).now_s()
    return [
        {
            "as_of": lost.as_of,
            "evidence_digest": lost.evidence_digest,
            "reason": f"drift seen in batch {lost.batch_id}; announced again, since no release had started",
        }
        for lost in unclaimed(decisions, claimed, now_s=now_s, min_age_s=LOST_AFTER_S)
    ]


def repair_release(env: Environment, product: LoadedProduct) -> list[str]:
    """Bring document, endpoint and registry alias together; returns what was repaired.

    An endpoint that does not answer is not repaired and not an error: it says so itself, and the next round comes.
    """
    from clearway.deploy.reconcile import reconcile  # noqa: PLC0415

    try:
        return list(reconcile(product, env))
    except Unavailable as error:
        return [f"not now: {error}"]


def stop_unwatched_jobs(env: Environment, *, clock: Clock | None = None) -> list[str]:
    """Stop jobs whose task is gone for good; returns their ids."""
    jobs = LocalJobs(env)
    now_s = (clock or SystemClock()).now_s()
    found = jobs.unwatched(now_s=now_s, longer_than_s=UNWATCHED_AFTER_S)
    for job_id in found:
        jobs.cancel(job_id)
    return found
