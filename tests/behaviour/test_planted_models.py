"""Real flights: the honest model passes the gates, each planted one is stopped by the gate that is there for it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Verdict
from clearway.evaluate.judging import judge_candidate
from clearway.evaluate.run import run
from clearway.evaluate.yardsticks import cases_of, fit_yardsticks, seeded
from clearway.infra.snapshots import current
from clearway.infra.storage import open_storage, to_path
from clearway.tabular.training_set import training_rows
from evaluate_kit import evaluate_inputs

# One small member for one epoch: enough for a model that is meant to be bad, at a tenth of the training time.
SMALL = {"num_members": 1.0, "num_epochs": 1.0, "num_bins": 24.0}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


def _run(world, model: ModelRef, name: str):
    inputs = evaluate_inputs(world.dataset, model, product=world.product, env=world.env, release_id=name)
    out = run(inputs, product=world.product, env=world.env)
    content = json.loads(open_storage(world.env.store_root).read(out.evaluation_uri))
    failed = {c["name"] for c in content["checks"] if c["is_decisive"] and c["verdict"] == "fail"}
    return out, failed


@pytest.fixture(scope="module")
def held(quarter):
    """Split and yardsticks of the quarter, shared by the candidates that were trained on it."""
    spec = quarter.product.spec
    split = training_rows(
        open_storage(quarter.env.store_root), quarter.dataset, product=quarter.product, env=quarter.env
    )
    make_rng = seeded(quarter.dataset.digest)
    yardsticks = fit_yardsticks(cases_of(split, spec), product=spec, num_threads=2, make_rng=make_rng)

    def judged(candidate: ModelRef, champion: ModelRef | None = None) -> tuple[Verdict, set[str]]:
        found = judge_candidate(
            quarter.open(candidate),
            quarter.open(champion) if champion else None,
            rows=split.holdout,
            yardsticks=yardsticks,
            operational=list,
            product=spec,
            num_threads=2,
            make_rng=make_rng,
        ).judgement
        return found.verdict, {c.name for c in found.checks if c.is_decisive and c.verdict is Verdict.FAIL}

    return judged


def test_the_honest_model_passes_every_gate_and_the_real_server(quarter, honest: ModelRef) -> None:
    out, failed = _run(quarter, honest, "honest")
    assert (out.verdict, failed) == (Verdict.PASS, set()), out.reason


def test_shuffled_labels_are_rejected(quarter, honest: ModelRef, planted_copy) -> None:
    """Trained on labels of other flights, judged on the true ones."""
    rng = np.random.default_rng(2013)

    def shuffle(labels: pa.Table) -> pa.Table:
        late = labels["late15"].combine_chunks().take(pa.array(rng.permutation(len(labels))))
        return labels.set_column(labels.column_names.index("late15"), "late15", late)

    planted = planted_copy(labels=shuffle)
    bad = planted.train(planted.dataset, "shuffled", params=SMALL)
    package = planted.open(bad)
    assert package.facts["holdout_start"] == quarter.open(honest).facts["holdout_start"]
    # The package lies in the other store; the true dataset is judged there too.
    there = type(quarter)(env=planted.env, product=quarter.product, dataset=quarter.dataset)
    labels = quarter.document().labels
    for piece in labels:  # put the true labels back in place
        base = planted.layout.batch(piece.batch_id)
        storage = open_storage(planted.env.store_root)
        storage.write(
            f"{base}/current.json",
            open_storage(quarter.env.store_root).read(f"{quarter.layout.batch(piece.batch_id)}/current.json"),
        )
    out, failed = _run(there, bad, "shuffled")
    assert out.verdict is Verdict.FAIL
    assert {"auc_floor", "not_worse_auc[trees]", "not_worse_logloss[trees]"} <= failed, out.reason


def test_an_outcome_that_slipped_in_as_a_feature_is_too_good_to_be_true(quarter, planted_copy) -> None:
    """A flight's own departure delay under an innocent name: the deny-list cannot see it, the ceiling can."""
    storage = open_storage(quarter.env.store_root)
    delays = []
    for piece in quarter.document().features:
        snapshot = current(storage, quarter.layout.batch(piece.batch_id))
        delays.append(pq.read_table(to_path(snapshot.file_uri("flights.parquet")), columns=["key", "dep_delay"]))
    known = pa.concat_tables(delays)

    def leak(features: pa.Table) -> pa.Table:
        found = pc.index_in(features["key"], value_set=known["key"].combine_chunks())
        own = known["dep_delay"].combine_chunks().take(found.combine_chunks()).cast(pa.float64())
        place = features.column_names.index("tail_slack_min")
        return features.set_column(place, "tail_slack_min", own.cast(features.schema.field(place).type))

    planted = planted_copy(features=leak)
    out, failed = _run(planted, planted.train(planted.dataset, "leak", params=SMALL), "leak")
    assert out.verdict is Verdict.FAIL
    assert "auc_ceiling" in failed, out.reason


def test_over_confidence_is_rejected_though_the_ranking_is_the_same(doctored, held) -> None:
    verdict, failed = held(doctored(scale=2.0))
    assert verdict is Verdict.FAIL
    assert {"ece", "not_worse_logloss[trees]"} & failed
    assert {"logloss_skill", "ece"} & failed
    assert not {"auc_floor", "not_worse_auc[trees]"} & failed, "AUC does not see it"


def test_noise_on_the_scores_is_rejected(doctored, held) -> None:
    verdict, failed = held(doctored(noise=0.9))
    assert verdict is Verdict.FAIL
    assert {"not_worse_auc[trees]", "not_worse_logloss[trees]"} <= failed


def test_one_carrier_scored_wrongly_is_found_behind_a_good_mean(doctored, held) -> None:
    verdict, failed = held(doctored(shift=1.0, carrier="MQ"))
    assert verdict is Verdict.FAIL
    assert "slice_calibration[carrier=MQ]" in failed
    assert not {"auc_floor", "ece", "logloss_skill"} & failed, "the mean hides it"


def test_a_champion_is_not_replaced_by_its_noisy_copy_but_by_its_equal(honest: ModelRef, doctored, held) -> None:
    assert held(doctored(scale=0.98), champion=honest) == (Verdict.PASS, set())
    verdict, failed = held(doctored(noise=0.9), champion=honest)
    assert verdict is Verdict.FAIL
    assert {"not_worse_auc[champion]", "not_worse_logloss[champion]"} <= failed
