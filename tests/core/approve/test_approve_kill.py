"""An answer whose process is killed at every fault point, then given again: one record, the first one."""

import pytest

from clearway.approve.run import run
from clearway.approve.spec import Inputs
from clearway.contracts.errors import NotApproved
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import ModelRef
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage, to_path
from clearway.product import LoadedProduct
from kill_kit import contents, killed_then_again, points_of, run_child

MODEL = ModelRef(uri="file:///models/a", digest="a" * 64)


def _inputs(env: Environment, answer: str) -> Inputs:
    """The answer of a person to a passed evaluation, which is left behind."""
    data = canonical_json({"model_digest": MODEL.digest, "dataset_digest": "d" * 64, "verdict": "pass"})
    open_storage(env.store_root).write(evaluation_uri(Layout(env.store_root, "flights"), "r1"), data)
    return Inputs(
        product="flights",
        release_id="r1",
        model=MODEL,
        evaluation_digest=sha256_of(data),
        answer=answer,
        answered_by="Ada",
        note="",
    )


@pytest.mark.parametrize("answer", ["approve", "reject"])
@pytest.mark.parametrize("point", points_of("approve"))
def test_killed_and_given_again_is_one_answer(
    env: Environment, flights: LoadedProduct, point: str, answer: str
) -> None:
    inputs = _inputs(env, answer)
    calm = run(inputs, product=flights, env=env)
    folder = Layout(env.store_root, "flights").release("r1")
    before = contents(env, folder)
    to_path(calm.approval_uri).unlink()
    again = killed_then_again("approve", inputs, product=flights, env=env, fault=f"{point}=kill")
    assert (again["verdict"], again["reason"], again["approval_uri"]) == (
        calm.verdict.value,
        calm.reason,
        calm.approval_uri,
    )
    assert contents(env, folder) == before


def test_an_answer_that_was_recorded_before_the_kill_cannot_be_turned_round(
    env: Environment, flights: LoadedProduct
) -> None:
    killed = run_child("approve", _inputs(env, "reject"), product=flights, env=env, fault="approve.after_record=kill")
    assert killed.returncode < 0
    with pytest.raises(NotApproved, match="already has the answer"):
        run(_inputs(env, "approve"), product=flights, env=env)
