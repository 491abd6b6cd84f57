"""The whole stage on a product with text, with a real server that answers texts."""

import json
from functools import partial
from pathlib import Path

import pytest

from clearway.contracts.codec import to_jsonable
from clearway.contracts.verdict import Verdict
from clearway.evaluate.compressor import DICTIONARY_FILE, Compressor
from clearway.evaluate.kinds import Case, Ground, yardsticks_of
from clearway.evaluate.language_judge import LanguageJudge
from clearway.evaluate.run import run
from clearway.infra.storage import to_path
from clearway.language.documents import read_documents
from clearway.product_language import LanguageGates
from evaluate_kit import evaluate_inputs
from language_kit import STORAGE, World, make_world

pytestmark = pytest.mark.slow
GATES = LanguageGates(
    kind="language", bits_max=2.5, bits_min=0.05, block="service", latency_ms=2_000.0, min_slice_documents=20
)


@pytest.fixture
def world(env) -> World:
    return make_world(env, gates=GATES)


def judged_in(world: World, candidate, champion=None):
    """The judgement of a package; `champion`: the one it would replace."""
    ground = Ground(dataset=world.dataset, product=world.product, env=world.env, storage=STORAGE)
    figures = to_jsonable(yardsticks_of(ground))
    judge = LanguageJudge(Case(candidate=candidate, champion=champion, ground=ground, yardsticks=figures))
    judge.read()
    return stopped(judge.judge(list).judgement.checks)


def learned(world: World) -> list[str]:
    """Texts of the training part."""
    return read_documents(STORAGE, world.dataset, product=world.product, env=world.env).train["text"].to_pylist()


def stopped(checks) -> set[str]:
    return {c.name for c in checks if c.is_decisive and c.verdict is not Verdict.PASS}


def test_an_honest_first_model_passes_and_a_rerun_finds_the_same_bytes(world: World, tmp_path: Path):
    model = world.package(tmp_path / "job")
    inputs = evaluate_inputs(world.dataset, model, product=world.product, env=world.env)
    out = run(inputs, product=world.product, env=world.env)
    assert out.verdict is Verdict.PASS, out.reason
    content, page = json.loads(STORAGE.read(out.evaluation_uri)), STORAGE.read(out.report_uri)
    names = {c["name"] for c in content["checks"]}
    assert {"bits_max", "better_than[compressor]", "golden_in_server", "latency", "holdout_unseen"} <= names
    assert content["evidence"]["num_blocks"] == 8
    assert 0 < content["evidence"]["bits"]["candidate"] < content["evidence"]["bits"]["compressor"]
    assert b"<script" not in page and len(page) < 200_000
    kept = STORAGE.read(world.layout.release(inputs.release_id, "evaluate", DICTIONARY_FILE))
    assert Compressor(kept).bits_per_byte(["a queue"]) == Compressor.after(learned(world)).bits_per_byte(["a queue"])
    assert run(inputs, product=world.product, env=world.env) == out
    to_path(out.evaluation_uri).unlink()
    assert run(inputs, product=world.product, env=world.env).evaluation_digest == out.evaluation_digest


def test_planted_faults_fail_by_their_own_gates(world: World, tmp_path: Path):
    good = world.package(tmp_path / "good")
    package = world.open(good)

    judged = partial(judged_in, world)
    assert judged(package) == set()
    assert judged(package, champion=package) == set()
    late = world.open(world.package(tmp_path / "late", facts={"holdout_start": "2024-01-20"}))
    assert judged(late) == {"holdout_unseen"}
    # The champion was trained on more of these days, but not on all of them.
    assert judged(package, champion=late) == set()
    poor = world.open(world.package(tmp_path / "poor", num_epochs=1, lr=1e-4))
    assert {"bits_max", "better_than[compressor]", "not_worse[champion]"} <= judged(poor, champion=package)
    assert "bits_jump" not in judged(package, champion=poor)


def test_a_champion_of_another_kind_is_left_to_a_person(world: World, tmp_path: Path):
    package = world.open(world.package(tmp_path / "job"))
    assert judged_in(world, package, champion=Champion()) == {"champion_comparable"}


class Champion:
    """All that is looked at of a package of another kind."""

    kind = "tabular"
