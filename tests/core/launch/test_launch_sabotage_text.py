"""Bad copies of a language model: each has its one defect, and proofs before live traffic find nothing."""

import functools
import time

import pytest

from clearway.contracts.errors import DataError
from clearway.deploy.controls import open_controls
from clearway.infra.environment import Environment
from clearway.kinds.scorers import open_scorer
from clearway.launch.sabotage import Defect, sabotage
from language_kit import TINY, make_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spoil(tmp_path_factory):
    """(the good package, defect → the copy's package)."""
    return spoiler(tmp_path_factory.mktemp("home"), is_tied=True)


def spoiler(home, *, is_tied):
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    world = make_world(env, model=TINY.model_copy(update={"is_tied": is_tied}))
    good = world.package(home / "job", num_epochs=1)
    controls = open_controls(env, product="api_docs")

    @functools.cache
    def copy(defect):
        return world.open(sabotage(controls, uri=good.uri, digest=good.digest, defect=defect))

    return world.open(good), copy


@pytest.mark.parametrize("defect", list(Defect))
def test_a_copy_gives_the_golden_answers_it_carries(spoil, defect):
    good, copy = spoil
    made = copy(defect)
    assert made.digest != good.digest
    assert made.facts["drill"] == defect.value
    assert open_scorer(made).score_rows(made.golden["rows"]).tolist() == made.golden["scores"]


def test_a_slow_copy_says_the_same_later(spoil):
    good, copy = spoil
    texts = [row["text"] for row in good.golden["rows"]][:2]
    took_s, said = [], []
    for scorer in (open_scorer(good), open_scorer(copy(Defect.SLOW))):
        scorer.score(texts)
        begun_s = time.process_time()  # of this process alone: neighbours do not count
        said.append(scorer.score(texts))
        took_s.append(time.process_time() - begun_s)
    assert said[0] == pytest.approx(said[1], rel=1e-6)
    assert took_s[1] > 10 * took_s[0]


def test_a_wrong_copy_needs_more_bits_than_one_that_knows_nothing(spoil):
    good, copy = spoil
    assert max(good.golden["scores"]) < 8 < min(copy(Defect.WRONG).golden["scores"])


@pytest.mark.parametrize("is_tied", [True, False], ids=["one table", "two tables"])
def test_a_crashing_copy_answers_some_texts_as_before_and_others_not_at_all(tmp_path, is_tied):
    good, copy = spoiler(tmp_path, is_tied=is_tied)
    made = copy(Defect.CRASHING)
    scorer, before = open_scorer(made), dict(zip(map(str, good.golden["rows"]), good.golden["scores"], strict=True))
    assert [before[str(row)] for row in made.golden["rows"]] == pytest.approx(made.golden["scores"], rel=1e-6)
    silent = [row for row in good.golden["rows"] if row not in made.golden["rows"]]
    assert 0.2 < len(silent) / len(good.golden["rows"]) < 0.8
    for row in silent:
        with pytest.raises(DataError, match="no number"):
            scorer.score_rows([row])
