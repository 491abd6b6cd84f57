"""Answers are bound to digests, given once, and never lift a failed evaluation."""

import itertools
import json

import pytest

from clearway.approve.run import run
from clearway.approve.spec import Inputs
from clearway.contracts.errors import ConfigError, IntegrityError, NotApproved
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Verdict
from clearway.infra.approvals import read_approval, verify_approval
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct

MODEL = ModelRef(uri="file:///models/a", digest="a" * 64)
OTHER = ModelRef(uri="file:///models/b", digest="b" * 64)


@pytest.fixture
def low(flights: LoadedProduct) -> LoadedProduct:
    return flights.model_copy(update={"spec": flights.spec.model_copy(update={"risk_tier": "low"})})


def _evaluated(env: Environment, verdict: Verdict = Verdict.PASS, *, release_id: str = "r1", model=MODEL) -> str:
    """Leave an evaluation behind and return its digest."""
    content = {"model_digest": model.digest, "dataset_digest": "d" * 64, "verdict": verdict.value}
    data = canonical_json(content)
    open_storage(env.store_root).write(evaluation_uri(Layout(env.store_root, "flights"), release_id), data)
    return sha256_of(data)


def _inputs(
    digest: str, answer: str = "approve", *, model=MODEL, by: str = "Ada", note: str = "", release_id: str = "r1"
):
    return Inputs(
        product="flights",
        release_id=release_id,
        model=model,
        evaluation_digest=digest,
        answer=answer,
        answered_by=by,
        note=note,
    )


def test_an_approval_names_the_bytes_and_lets_only_them_through(env: Environment, flights: LoadedProduct) -> None:
    digest = _evaluated(env)
    out = run(_inputs(digest, note="looks right"), product=flights, env=env)
    storage = open_storage(env.store_root)
    assert out.verdict is Verdict.PASS
    record = verify_approval(storage, out.approval_uri, model_digest=MODEL.digest)
    assert (record.answered_by, record.note, record.is_required) == ("Ada", "looks right", True)
    assert (record.evaluation_digest, record.risk_tier) == (digest, "medium")
    with pytest.raises(NotApproved, match="not for"):
        verify_approval(storage, out.approval_uri, model_digest=OTHER.digest)


def test_a_rejection_is_an_answer_and_blocks_the_bytes(env: Environment, flights: LoadedProduct) -> None:
    out = run(_inputs(_evaluated(env), "reject", note="slice EWR"), product=flights, env=env)
    assert out.verdict is Verdict.FAIL
    assert out.reason == "reject by Ada: slice EWR"
    with pytest.raises(NotApproved, match="reject"):
        verify_approval(open_storage(env.store_root), out.approval_uri, model_digest=MODEL.digest)


def test_the_same_answer_again_keeps_the_first_record(env: Environment, flights: LoadedProduct) -> None:
    digest = _evaluated(env)
    first = run(_inputs(digest, note="first"), product=flights, env=env)
    again = run(_inputs(digest, note="second", by="Grace"), product=flights, env=env)
    assert again == first
    assert read_approval(open_storage(env.store_root), first.approval_uri).answered_by == "Ada"


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["approve", "reject", "auto"], 2)))
def test_a_second_different_answer_is_refused(
    env: Environment, flights: LoadedProduct, first: str, second: str
) -> None:
    digest = _evaluated(env)
    out = run(_inputs(digest, first), product=flights, env=env)
    with pytest.raises(NotApproved, match="already has the answer"):
        run(_inputs(digest, second), product=flights, env=env)
    assert read_approval(open_storage(env.store_root), out.approval_uri).answer.value == first


def test_another_model_in_the_same_release_needs_its_own_answer(env: Environment, flights: LoadedProduct) -> None:
    first = run(_inputs(_evaluated(env)), product=flights, env=env)
    second = run(_inputs(_evaluated(env, model=OTHER), "reject", model=OTHER), product=flights, env=env)
    assert first.approval_uri != second.approval_uri
    assert (first.verdict, second.verdict) == (Verdict.PASS, Verdict.FAIL)


def test_a_low_tier_records_that_nobody_had_to_look(env: Environment, low: LoadedProduct) -> None:
    out = run(_inputs(_evaluated(env), "not_required", by="risk tier"), product=low, env=env)
    record = verify_approval(open_storage(env.store_root), out.approval_uri, model_digest=MODEL.digest)
    assert out.verdict is Verdict.PASS
    assert (record.is_required, record.risk_tier) == (False, "low")


@pytest.mark.parametrize(
    ("verdict", "answer", "allowed"),
    [
        ("pass", "approve", True),
        ("pass", "auto", True),
        ("pass", "not_required", False),  # medium tier
        ("pass", "reject", True),
        ("inconclusive", "approve", True),
        ("inconclusive", "auto", False),
        ("inconclusive", "reject", True),
        ("fail", "approve", False),
        ("fail", "auto", False),
        ("fail", "reject", True),
        ("error", "approve", False),
    ],
)
def test_which_answers_a_verdict_admits(
    env: Environment, flights: LoadedProduct, verdict: str, answer: str, allowed: bool
) -> None:
    digest = _evaluated(env, Verdict(verdict))
    if allowed:
        out = run(_inputs(digest, answer), product=flights, env=env)
        assert (out.verdict is Verdict.PASS) == (answer != "reject")
    else:
        with pytest.raises(NotApproved):
            run(_inputs(digest, answer), product=flights, env=env)


def test_a_low_tier_still_needs_a_person_for_an_inconclusive_evaluation(env: Environment, low: LoadedProduct) -> None:
    with pytest.raises(NotApproved, match="needs an answer"):
        run(_inputs(_evaluated(env, Verdict.INCONCLUSIVE), "not_required"), product=low, env=env)


def test_an_evaluation_that_changed_since_it_was_shown_is_refused(env: Environment, flights: LoadedProduct) -> None:
    digest = _evaluated(env)
    _evaluated(env, Verdict.INCONCLUSIVE)
    with pytest.raises(IntegrityError, match="expected"):
        run(_inputs(digest), product=flights, env=env)


def test_an_evaluation_of_another_model_is_refused(env: Environment, flights: LoadedProduct) -> None:
    with pytest.raises(IntegrityError, match="judged model"):
        run(_inputs(_evaluated(env), model=OTHER), product=flights, env=env)


def test_no_evaluation_no_answer(env: Environment, flights: LoadedProduct) -> None:
    with pytest.raises(IntegrityError, match="run the evaluate stage first"):
        run(_inputs("e" * 64), product=flights, env=env)


def test_an_unknown_answer_names_the_allowed_ones(env: Environment, flights: LoadedProduct) -> None:
    with pytest.raises(ConfigError, match=r"allowed.*approve.*reject"):
        run(_inputs(_evaluated(env), "yes"), product=flights, env=env)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_answer_needs_a_name(env: Environment, flights: LoadedProduct, name: str) -> None:
    with pytest.raises(NotApproved, match="answered_by"):
        run(_inputs(_evaluated(env), by=name), product=flights, env=env)


@pytest.mark.parametrize("field", ["answer", "model_digest", "is_required"])
def test_a_record_with_a_missing_field_is_no_approval(env: Environment, flights: LoadedProduct, field: str) -> None:
    out = run(_inputs(_evaluated(env)), product=flights, env=env)
    storage = open_storage(env.store_root)
    record = json.loads(storage.read(out.approval_uri))
    del record[field]
    storage.write(out.approval_uri, canonical_json(record))
    with pytest.raises(NotApproved, match="is no approval"):
        verify_approval(storage, out.approval_uri, model_digest=MODEL.digest)


def test_a_record_that_skips_a_required_answer_is_refused_at_deploy(env: Environment, flights: LoadedProduct) -> None:
    out = run(_inputs(_evaluated(env)), product=flights, env=env)
    storage = open_storage(env.store_root)
    record = json.loads(storage.read(out.approval_uri)) | {"answer": "not_required"}
    storage.write(out.approval_uri, canonical_json(record))
    with pytest.raises(NotApproved, match="needs an answer"):
        verify_approval(storage, out.approval_uri, model_digest=MODEL.digest)


def test_no_record_is_no_approval(env: Environment) -> None:
    storage = open_storage(env.store_root)
    with pytest.raises(NotApproved, match="no approval at"):
        verify_approval(storage, f"{env.store_root}/nowhere.json", model_digest=MODEL.digest)
