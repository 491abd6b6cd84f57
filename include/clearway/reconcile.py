"""What a crash between two systems left undone, over all stages of one product. Safe to run at any time, and again."""

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.clock import Clock, SystemClock, format_instant
from clearway.infra.cost.ledger import BATCH_CHAIN, RELEASE_CHAIN, Ledger
from clearway.infra.environment import Environment
from clearway.infra.jobs import open_jobs
from clearway.infra.jobs.local import LocalJobs
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, join, open_storage
from clearway.product import LoadedProduct

if TYPE_CHECKING:
    from clearway.monitor.reconcile import StoredDecision

# Below the drop folder: one mark per request file that was announced.
TAKEN = "taken"
# An event needs seconds to become a run, and a run seconds to claim its evidence; a minute is well above both.
LOST_AFTER_S = 60.0
# A retry re-attaches within seconds, a restarted scheduler within minutes; a job unwatched for longer has no owner.
UNWATCHED_AFTER_S = 900.0
# Services bill minutes after a job's end, and this runs every five; older runs have their bills.
NEWEST_RUNS = 3


def drop_folder(env: Environment, product: str) -> str:
    """Where request files of a product appear: on this machine, or beside the store in a bucket."""
    is_local = env.store_root.startswith("file://")
    return join(env.home.as_uri() if is_local else env.store_root, "drop", product)


def lost_decisions(env: Environment, product: LoadedProduct, *, clock: Clock | None = None) -> list[dict[str, Any]]:
    """Retraining decisions that no release has claimed, as the payloads of the events to send again, oldest first."""
    from clearway.monitor.history import stored_decisions  # noqa: PLC0415 - each part is optional for the others
    from clearway.monitor.reconcile import unclaimed  # noqa: PLC0415

    decisions, claimed = stored_decisions(open_storage(env.store_root), Layout(env.store_root, product.name))
    now_s = (clock or SystemClock()).now_s()
    return [
        {
            "as_of": lost.request.as_of if lost.request else lost.as_of,
            "evidence_digest": lost.evidence_digest,
            "reason": f"{_cause(lost)}; announced again, since no release had started",
        }
        for lost in unclaimed(decisions, claimed, now_s=now_s, min_age_s=LOST_AFTER_S)
    ]


def _cause(decision: "StoredDecision") -> str:
    asked = decision.request
    return (asked.reason or "asked for by hand") if asked else f"drift seen in batch {decision.batch_id}"


def unmonitored_batches(env: Environment, product: LoadedProduct) -> list[dict[str, Any]]:
    """Landed batches without a monitor summary, as the payloads of the events to send again, oldest first.

    Airflow can leave an event that arrives together with another without a run of its own. Batches before the end of
    the first release are training data and need no summary. Two listings, however many batches there were: this is
    asked every few minutes, for years.
    """
    from clearway.monitor.history import SUMMARY  # noqa: PLC0415

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    clock, found = product.spec.batch, []
    monitored = set(storage.list(layout.monitor("").rstrip("/")))
    for uri in storage.list(layout.ledger_entry("0").rpartition("/")[0]):
        batch_id = uri.rpartition("/")[2].removesuffix(".json")
        try:
            start = clock.start_of(batch_id)
        except ConfigError:  # landed by another clock, before product.yaml changed; no run of this one could take it
            continue
        if start < product.spec.release.first_end or layout.monitor(batch_id, SUMMARY) in monitored:
            continue
        if _is_due(storage, layout.monitor(batch_id, "waiting.json")):
            end = format_instant(clock.end_of(start))
            found.append({"batch_id": batch_id, "start": format_instant(start), "end": end})
    return found


def unclaimed_requests(env: Environment, product: LoadedProduct) -> list[dict[str, Any]]:
    """Request files that were announced and have no answer, as payloads to send again. A granted one without a release
    is a lost decision."""
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    found = []
    for uri in storage.list(join(drop_folder(env, product.name), TAKEN)):
        request = json.loads(storage.read(uri))
        digest = request["evidence_digest"]
        answers = (layout.claim(digest), layout.decision(digest), layout.refusal(digest))
        if not any(storage.exists(answer) for answer in answers) and _is_due(
            storage, layout.claim(f"{digest}.waiting")
        ):
            found.append(request)
    return found


def _is_due(storage: Storage, mark: str) -> bool:
    """Whether to speak up at this sighting: not at the first, since the thing may just be under way; then ever more
    seldom (sightings 2, 4, 8, …), so that what cannot succeed does not fill the machine with attempts."""
    sightings = 1 + (int(json.loads(storage.read(mark))["sightings"]) if storage.exists(mark) else 0)
    storage.write(mark, json.dumps({"sightings": sightings}).encode())
    return sightings > 1 and sightings & (sightings - 1) == 0


def repair_release(env: Environment, product: LoadedProduct) -> list[str]:
    """Bring document, endpoint and registry alias together; returns what was repaired.

    An endpoint that does not answer is not repaired and not an error: it says so itself, and the next round comes.
    """
    from clearway.deploy.reconcile import reconcile  # noqa: PLC0415

    try:
        return list(reconcile(product, env))
    except Unavailable as error:
        return [f"not now: {error}"]


def settle_bills(env: Environment, product: LoadedProduct, *, clock: Clock | None = None) -> list[str]:
    """Write the bills that came after the last look at a run; returns the runs that still wait for one."""
    ledger, runner, now_s = Ledger(env, product.spec.name), open_jobs(env), (clock or SystemClock()).now_s()
    waiting = []
    for chain in (RELEASE_CHAIN, BATCH_CHAIN):
        for run in islice(ledger.newest(now_s=now_s, chain=chain), NEWEST_RUNS):
            if ledger.unbilled(run):
                ledger.settle(run, runner)
            if ledger.unbilled(run):
                waiting.append(run)
    return waiting


def stop_unwatched_jobs(env: Environment, *, clock: Clock | None = None) -> list[str]:
    """Stop jobs whose task is gone for good; returns their ids."""
    jobs = LocalJobs(env)
    now_s = (clock or SystemClock()).now_s()
    found = jobs.unwatched(now_s=now_s, longer_than_s=UNWATCHED_AFTER_S)
    for job_id in found:
        jobs.cancel(job_id)
    return found
