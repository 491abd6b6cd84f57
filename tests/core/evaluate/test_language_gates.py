"""Each gate of a language model stops what it is there for, and nothing else."""

import dataclasses

import numpy as np
import pytest

from clearway.contracts.verdict import Verdict
from clearway.evaluate.compressor import WINDOW_BYTES, Compressor
from clearway.evaluate.language_evidence import Texts, gather
from clearway.evaluate.language_gates import TextCase, judge_texts
from clearway.product_language import LanguageGates

GATES = LanguageGates(kind="language", bits_max=3.0, bits_min=0.5, min_slice_documents=20)
NUM = 120


def texts(candidate=1.5, champion=1.6, compressor=2.5, *, noise=0.05, num_blocks=12, **changes) -> Texts:
    """Documents of two slices whose bits are these means; what makes a text hard makes it hard for all."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.3, NUM)
    scores = {
        name: np.abs(mean + hard + rng.normal(0, noise, NUM))
        for name, mean in (("candidate", candidate), ("champion", champion), ("compressor", compressor))
        if mean is not None
    }
    parts = {
        "num_bytes": rng.integers(20, 500, NUM).astype(float),
        "blocks": np.array([f"b{i % num_blocks}" for i in range(NUM)], dtype=object),
        "slices": {"kind": np.array(["service" if i < 30 else "operation" for i in range(NUM)], dtype=object)},
        "scores": scores,
        "is_new_to_champion": None if champion is None else np.ones(NUM, dtype=bool),
        "num_repeated": 3,
    }
    return Texts(**(parts | changes))


def judged(found: Texts, gates=GATES, *, has_champion=True, schema=("text",)):
    evidence = gather(
        found,
        num_resamples=200,
        confidence=0.95,
        min_blocks=5,
        min_slice=gates.min_slice_documents,
        make_rng=lambda question: np.random.default_rng(len(question)),
    )
    case = TextCase(evidence=evidence, gates=gates, has_champion=has_champion, schema=schema, text="text")
    judgement = judge_texts(case)
    stopped = {c.name: c.verdict for c in judgement.checks if c.is_decisive and c.verdict is not Verdict.PASS}
    return judgement.verdict, stopped


def test_a_good_model_passes_with_and_without_a_champion():
    assert judged(texts()) == (Verdict.PASS, {})
    assert judged(texts(champion=None), has_champion=False) == (Verdict.PASS, {})


FAIL, OPEN = Verdict.FAIL, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("found", "stopped"),
    [
        (texts(candidate=3.5, champion=3.55, compressor=4.5), {"bits_max": FAIL}),
        (texts(candidate=0.4, champion=0.45, noise=0.01), {"bits_min": FAIL}),
        (texts(candidate=0.9, champion=1.6), {"bits_jump": FAIL}),
        (texts(candidate=1.9, champion=1.6), {"not_worse[champion]": FAIL, "slice_champion[kind=operation]": FAIL}),
        (texts(candidate=2.6, champion=2.9), {"better_than[compressor]": FAIL}),
        (texts(num_blocks=4), {"holdout_blocks": OPEN, "champion_comparable": OPEN, "better_than[compressor]": OPEN}),
        (texts(is_new_to_champion=np.arange(NUM) < 3), {"champion_comparable": OPEN}),
    ],
    ids=["too bad", "too good", "jump", "worse", "no better than a compressor", "few blocks", "known to the champion"],
)
def test_a_fault_is_stopped_by_its_own_gate(found, stopped):
    verdict, names = judged(found)
    assert verdict is (FAIL if FAIL in stopped.values() else OPEN)
    assert stopped.items() <= names.items()
    assert all(name.startswith("slice_") for name in names.keys() - stopped.keys()), names


def test_a_slice_that_an_average_hides_is_found():
    good = texts()
    scores = {name: values.copy() for name, values in good.scores.items()}
    scores["candidate"][:30] += 1.2
    scores["candidate"][30:] -= 0.2
    verdict, names = judged(dataclasses.replace(good, scores=scores))
    assert verdict is FAIL
    assert {"slice_compressor[kind=service]", "slice_champion[kind=service]"} <= set(names)
    assert not any("operation" in name for name in names)


def test_an_unclear_comparison_is_left_to_a_person():
    found = texts(candidate=2.42, compressor=2.5, champion=None, noise=0.6)
    few = GATES.model_copy(update={"min_slice_documents": NUM})
    assert judged(found, few, has_champion=False) == (OPEN, {"better_than[compressor]": OPEN})


def test_a_person_decides_on_a_first_model_where_the_product_says_so():
    gates = GATES.model_copy(update={"first_model": "person"})
    assert judged(texts(champion=None), gates, has_champion=False) == (OPEN, {"first_model": OPEN})


def test_a_model_that_reads_something_else_fails():
    assert judged(texts(), schema=("text", "author")) == (FAIL, {"columns_declared": FAIL})


def test_a_mean_is_that_of_all_bytes_together():
    found = texts()
    half = {name: np.repeat(values, 2) for name, values in found.scores.items()}
    cut = dataclasses.replace(
        found,
        num_bytes=np.repeat(found.num_bytes / 2, 2),
        blocks=np.repeat(found.blocks, 2),
        slices={"kind": np.repeat(found.slices["kind"], 2)},
        scores=half,
        is_new_to_champion=np.ones(2 * NUM, dtype=bool),
    )
    settings = {"num_resamples": 100, "confidence": 0.95, "min_blocks": 5, "min_slice": 20}
    one, two = (gather(t, **settings, make_rng=lambda _: np.random.default_rng(1)) for t in (found, cut))
    assert two.bits == pytest.approx(one.bits)
    assert two.comparisons["champion"].difference.upper == pytest.approx(one.comparisons["champion"].difference.upper)


def test_the_compressor_knows_what_was_learned_and_only_the_newest_of_it():
    fresh, learned = (
        Compressor.after(["nothing of the kind"]),
        Compressor.after(["it says this word for word, then it ends"]),
    )
    text = ["it says this word for word, then it ends"]
    assert learned.bits_per_byte(text)[0] <= 1 and fresh.bits_per_byte(text)[0] > 4
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(33, 127, 1000))) for _ in range(WINDOW_BYTES // 1000 + 1)]
    assert Compressor.after([*text, *noise]).bits_per_byte(text)[0] > 4
    assert Compressor.after([*noise, *text]).bits_per_byte(text)[0] <= 1
    assert Compressor.after(text * 40_000).bits_per_byte(noise)[0] > 6  # repeated texts leave the window to others
