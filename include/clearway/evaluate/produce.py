"""The work of the evaluate stage: rows and models in, evaluation and page out."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import Unmeasurable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.release_document import Version
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.evaluate.cheap_models import Line, Rows, Trees
from clearway.evaluate.evidence import CANDIDATE, CHAMPION, LINE, TREES, Evidence, Holdout, gather
from clearway.evaluate.folds import Fold, run_folds
from clearway.evaluate.gates import MIN_DAYS, Case, judge_model
from clearway.evaluate.live import Latency, latency_check, model_server, smoke, time_single_rows
from clearway.evaluate.margins import Margins, derivation, derive
from clearway.evaluate.report import EPOCH, Page, render, render_error
from clearway.evaluate.spec import Inputs
from clearway.infra.clock import SystemClock
from clearway.infra.datasets import DAY, LABEL, open_dataset, read_labelled
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.measures.binary import Array
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import Package, open_package
from clearway.packaging.runtime import Scorer
from clearway.packaging.split import Split, split_at
from clearway.product import LoadedProduct

LOG = logging.getLogger("clearway.evaluate")
# The reference on the full training rows; more trees than on the folds, since it has more rows.
REFERENCE_TREES = 200
REFERENCE_FILE = "lightgbm.txt"
# A line has about 150 weights; more rows than this change none of its scores visibly.
MAX_LINE_ROWS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All numbers of one evaluation; `reference`: the LightGBM yardstick as text, for comparisons on later rows."""

    holdout: Holdout
    evidence: Evidence
    folds: tuple[Fold, ...]
    margins: Margins
    judgement: Judgement
    reference: str


def produce(
    inputs: Inputs,
    *,
    case: dict[str, str | None],
    champion: Version | None,
    product: LoadedProduct,
    env: Environment,
    storage: Storage,
) -> bytes:
    """Write timings, page and evaluation, in this order, and return the evaluation's bytes.

    What cannot be measured at all becomes an ERROR with its reason, never a verdict on the model.
    """
    layout = Layout(env.store_root, product.name)
    keys = env.home / "keys"
    candidate = open_package(storage, inputs.model.uri, inputs.model.digest, key_folder=keys)
    serving = open_package(storage, champion.uri, champion.digest, key_folder=keys) if champion else None
    split = _split(inputs, product=product, storage=storage, layout=layout)
    LOG.info("judging on %d rows from %s", len(split.holdout), split.holdout_start)
    with model_server(env, product=product.name, clock=SystemClock()) as endpoint:
        latency = time_single_rows(candidate)
        operational = [
            latency_check(latency, limit_ms=product.spec.gates.latency_ms),
            smoke(endpoint, inputs.model, candidate),
        ]
    fault("evaluate.after_smoke")
    measured = _judged_or_error(
        lambda: _measure(split, candidate, serving, operational, product=product, env=env, seed=inputs.dataset.digest),
        operational,
    )
    fault("evaluate.before_write")
    return _write(inputs, measured, latency, case=case, product=product, storage=storage, layout=layout)


def _split(inputs: Inputs, *, product: LoadedProduct, storage: Storage, layout: Layout) -> Split:
    spec = product.spec
    rows = read_labelled(
        storage,
        layout,
        open_dataset(storage, inputs.dataset),
        table=spec.label.table,
        key=spec.features.key,
        column=spec.label.column,
    )
    return split_at(rows, holdout_days=spec.release.holdout_days)


def _measure(
    split: Split,
    candidate: Package,
    champion: Package | None,
    operational: Sequence[Check],
    *,
    product: LoadedProduct,
    env: Environment,
    seed: str,
) -> Measured:
    """Yardsticks, folds, scores, margins, gates. Raises: Unmeasurable."""
    spec, make_rng = product.spec, _seeded(seed)
    train, held = rows_of(split.train, candidate.encoder), rows_of(split.holdout, candidate.encoder)
    num_threads = env.jobs.num_threads
    min_slice = (spec.gates.min_slice_rows, spec.gates.min_slice_positives)
    trees = Trees(train, num_trees=REFERENCE_TREES, num_threads=num_threads)
    folds = run_folds(
        train,
        slice_values(split.train, spec.features.slices),
        num_folds=spec.gates.num_folds,
        holdout_days=spec.release.holdout_days,
        num_resamples=spec.gates.num_resamples,
        min_slice=min_slice,
        num_threads=num_threads,
        make_rng=make_rng,
    )
    margins = derive(folds, confidence=spec.gates.confidence)
    holdout = Holdout(
        labels=held.labels,
        days=held.days,
        slices=slice_values(split.holdout, spec.features.slices),
        base_rate=float(train.labels.mean()),
        scores=_scores(
            split.holdout,
            train,
            held,
            candidate=candidate,
            champion=champion,
            trees=trees,
            num_threads=num_threads,
        ),
        is_new_to_champion=None if champion is None else held.days >= _first_unseen_day(champion),
    )
    evidence = gather(
        holdout,
        num_resamples=spec.gates.num_resamples,
        confidence=spec.gates.confidence,
        min_slice=min_slice,
        min_days=MIN_DAYS,
        make_rng=make_rng,
    )
    case = Case(
        evidence=evidence,
        margins=margins,
        gates=spec.gates,
        features=spec.features,
        has_champion=champion is not None,
        schema=tuple(candidate.schema["order"]),
    )
    judgement = judge_model(case, extra=[unseen_check(candidate, split.holdout_start), *operational])
    return Measured(
        holdout=holdout,
        evidence=evidence,
        folds=folds,
        margins=margins,
        judgement=judgement,
        reference=trees.to_text(),
    )


def rows_of(table: pa.Table, encoder: Encoder) -> Rows:
    """Labelled rows as the yardsticks take them, encoded as the candidate encodes them."""
    numeric, categorical = encoder.encode_table(table)
    return Rows(
        numeric=numeric,
        categorical=categorical,
        labels=table[LABEL].to_numpy().astype(np.float64),
        days=table[DAY].cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64),
    )


def slice_values(table: pa.Table, columns: Sequence[str]) -> dict[str, npt.NDArray[np.object_]]:
    """Values of the slicing columns. [N] each"""
    return {c: table[c].cast(pa.string()).to_numpy(zero_copy_only=False) for c in columns}


def unseen_check(candidate: Package, holdout_start: date) -> Check:
    """The candidate's own record of where its training ended, against where judging starts."""
    trained_until = _first_unseen_day(candidate)
    is_unseen = trained_until <= (holdout_start - EPOCH).days
    reason = f"training ended before {candidate.facts['holdout_start']}, judging starts on {holdout_start}"
    return Check(name="holdout_unseen", verdict=Verdict.PASS if is_unseen else Verdict.FAIL, reason=reason)


def _first_unseen_day(package: Package) -> int:
    """First day (since 1970) whose rows the model was not trained on."""
    return (date.fromisoformat(package.facts["holdout_start"]) - EPOCH).days


def _scores(
    table: pa.Table,
    train: Rows,
    held: Rows,
    *,
    candidate: Package,
    champion: Package | None,
    trees: Trees,
    num_threads: int,
) -> dict[str, Array]:
    found = {CANDIDATE: _score(candidate, table, num_threads=num_threads)}
    if champion is not None:
        found[CHAMPION] = _score(champion, table, num_threads=num_threads)
    found[TREES] = trees.score(held)
    found[LINE] = Line(train.thinned(MAX_LINE_ROWS)).score(held)
    return found


def _score(package: Package, table: pa.Table, *, num_threads: int) -> Array:
    return Scorer(package, num_threads=num_threads).score_table(table).astype(np.float64)


def _seeded(digest: str) -> Callable[[str], np.random.Generator]:
    """Generators that depend on the dataset and the question alone: a second evaluation draws the same days."""

    def make(question: str) -> np.random.Generator:
        return np.random.default_rng(int(sha256_of(f"{digest}/{question}".encode())[:16], 16))

    return make


def _judged_or_error(measure: Callable[[], Measured], operational: Sequence[Check]) -> Measured | Judgement:
    try:
        return measure()
    except Unmeasurable as error:
        return judge([Check(name="measurable", verdict=Verdict.ERROR, reason=str(error)), *operational])


def _reason(judgement: Judgement) -> str:
    decisive = sum(c.is_decisive for c in judgement.checks)
    if judgement.verdict is Verdict.PASS:
        return f"{decisive} gates passed"
    return f"{len(judgement.reasons)} of {decisive} gates did not pass; first: {judgement.reasons[0]}"


def evaluation_json(
    measured: Measured | Judgement, *, case: dict[str, str | None], confidence: float, release_id: str
) -> bytes:
    """Canonical bytes: the same inputs give the same digest anywhere, so nothing timed and no address is in it."""
    judgement = measured if isinstance(measured, Judgement) else measured.judgement
    content: dict[str, Any] = {
        **case,
        "release_id": release_id,
        "verdict": judgement.verdict.value,
        "reason": _reason(judgement),
        "checks": to_jsonable(judgement.checks),
    }
    if isinstance(measured, Measured):
        content["evidence"] = to_jsonable(measured.evidence)
        content["thresholds"] = derivation(measured.margins, measured.folds, confidence=confidence)
    return canonical_json(content)


def _write(
    inputs: Inputs,
    measured: Measured | Judgement,
    latency: Latency,
    *,
    case: dict[str, str | None],
    product: LoadedProduct,
    storage: Storage,
    layout: Layout,
) -> bytes:
    confidence = product.spec.gates.confidence
    data = evaluation_json(measured, case=case, confidence=confidence, release_id=inputs.release_id)
    title = f"Evaluation of {product.name}, release {inputs.release_id}"
    provenance = [("evaluation", sha256_of(data)), *((k, str(v)) for k, v in case.items())]
    if isinstance(measured, Judgement):
        html = render_error(measured, title=title, provenance=provenance)
    else:
        html = render(
            Page(
                title=title,
                judgement=measured.judgement,
                evidence=measured.evidence,
                holdout=measured.holdout,
                margins=measured.margins,
                folds=measured.folds,
                latency=latency,
                provenance=provenance,
            )
        )
    if isinstance(measured, Measured):
        storage.write(layout.release(inputs.release_id, "evaluate", REFERENCE_FILE), measured.reference.encode())
    storage.write(layout.release(inputs.release_id, "evaluate", "timings.json"), canonical_json(asdict(latency)))
    storage.write(layout.release(inputs.release_id, "evaluate", "report.html"), html)
    fault("evaluate.before_evaluation")
    storage.write(evaluation_uri(layout, inputs.release_id), data)
    return data
