"""The release document's transitions: who may write, what is kept, what is refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts import release_document as documents
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import LeaseHeld, StaleWriter
from clearway.contracts.release_document import Outcome, Phase, ReleaseDocument, Version

BLUE = Version(uri="file:///m/blue", digest="b" * 64, release_id="r1")
GREEN = Version(uri="file:///m/green", digest="0" * 64, release_id="r2")
EMPTY = ReleaseDocument(product="p")


def owned(document=EMPTY, holder="r2", now_s=100.0):
    return documents.take_lease(document, holder=holder, now_s=now_s, ttl_s=10)


def deploying(document=EMPTY, version=GREEN):
    document = owned(document, holder=version.release_id)
    return documents.begin_deploy(document, version, epoch=document.epoch)


def promoted(document=EMPTY, version=GREEN):
    document = deploying(document, version)
    return documents.promote(document, epoch=document.epoch, now_s=1.0, reason="good")


def test_taking_the_lease_raises_the_epoch_in_the_same_document():
    document = owned()
    assert (document.epoch, document.lease.holder, document.lease.expires_s) == (1, "r2", 110.0)


@pytest.mark.parametrize(("now_s", "is_free"), [(109.9, False), (110.0, True), (200.0, True)])
def test_another_holder_waits_until_the_lease_expires(now_s, is_free):
    document = owned(now_s=100.0)
    if is_free:
        assert documents.take_lease(document, holder="r3", now_s=now_s, ttl_s=10).epoch == 2
    else:
        with pytest.raises(LeaseHeld, match=r"held by 'r2' for another"):
            documents.take_lease(document, holder="r3", now_s=now_s, ttl_s=10)


def test_the_same_holder_may_resume_and_a_rollback_may_seize():
    document = owned()
    assert documents.take_lease(document, holder="r2", now_s=101, ttl_s=10).epoch == 2
    seized = documents.take_lease(document, holder="rb", now_s=101, ttl_s=10, is_seized=True)
    assert (seized.epoch, seized.lease.holder) == (2, "rb")


WRITES = {
    "renew_lease": lambda d, e: documents.renew_lease(d, epoch=e, now_s=1, ttl_s=1),
    "drop_lease": lambda d, e: documents.drop_lease(d, epoch=e),
    "begin_deploy": lambda d, e: documents.begin_deploy(d, GREEN, epoch=e),
    "set_candidate_weight": lambda d, e: documents.set_candidate_weight(d, epoch=e, weight_pct=1),
    "promote": lambda d, e: documents.promote(d, epoch=e, now_s=1, reason=""),
    "begin_abort": lambda d, e: documents.begin_abort(d, epoch=e, reason=""),
    "join_order": lambda d, e: documents.join_order(d, epoch=e, order_id="o"),
    "finish_abort": lambda d, e: documents.finish_abort(d, epoch=e, now_s=1),
    "begin_rollback": lambda d, e: documents.begin_rollback(d, epoch=e, release_id="o", reason=""),
    "finish_rollback": lambda d, e: documents.finish_rollback(d, epoch=e, now_s=1),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("document", [EMPTY, deploying(), promoted()], ids=["empty", "deploying", "promoted"])
def test_every_write_of_a_stale_epoch_is_refused(name, document):
    newer = documents.take_lease(document, holder="other", now_s=1e9, ttl_s=10)
    with pytest.raises(StaleWriter, match="is stale"):
        WRITES[name](newer, document.epoch)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("begin_deploy", deploying()),
        ("begin_rollback", deploying(promoted(version=BLUE))),
        ("promote", EMPTY),
        ("begin_abort", EMPTY),
        ("finish_abort", deploying()),
        ("finish_rollback", deploying()),
        ("join_order", deploying()),
        ("renew_lease", EMPTY),
        ("begin_rollback", EMPTY),
    ],
)
def test_a_transition_from_the_wrong_phase_is_refused(name, document):
    with pytest.raises(StaleWriter):
        WRITES[name](document, document.epoch)


def test_promotion_keeps_the_old_champion_as_the_way_back():
    document = promoted(promoted(version=BLUE))
    assert (document.champion, document.previous, document.candidate) == (GREEN, BLUE, None)
    assert (document.phase, document.lease, document.release_id) == (Phase.IDLE, None, None)
    entry = document.history[-1]
    assert (entry.release_id, entry.outcome, entry.before, entry.after, entry.candidate) == (
        "r2",
        Outcome.PROMOTED,
        BLUE.digest,
        GREEN.digest,
        GREEN.digest,
    )


def test_promoting_the_same_model_again_does_not_lose_the_way_back():
    document = promoted(promoted(version=BLUE))
    again = promoted(document, dataclasses.replace(GREEN, release_id="r3"))
    assert (again.champion.digest, again.previous) == (GREEN.digest, BLUE)


def test_an_abort_leaves_the_champion_and_says_why():
    document = deploying(promoted(version=BLUE))
    document = documents.begin_abort(document, epoch=document.epoch, reason="golden differs")
    assert (document.phase, document.weight_pct) == (Phase.ABORTING, 0)
    document = documents.finish_abort(document, epoch=document.epoch, now_s=2)
    entry = documents.outcome_of(document, "r2")
    assert (document.champion, document.lease) == (BLUE, None)
    assert (entry.outcome, entry.reason, entry.candidate) == (Outcome.ABORTED, "golden differs", GREEN.digest)


def test_a_superseded_release_is_recorded_as_such_and_the_holder_keeps_its_lease():
    document = owned(deploying(), holder="r3", now_s=1e6)
    document = documents.begin_abort(document, epoch=document.epoch, reason="r3", ending=Outcome.SUPERSEDED)
    document = documents.finish_abort(document, epoch=document.epoch, now_s=2, keeps_lease=True)
    assert documents.outcome_of(document, "r2").outcome is Outcome.SUPERSEDED
    assert (document.lease.holder, document.phase, document.ending) == ("r3", Phase.IDLE, None)


def test_a_rollback_returns_to_the_previous_champion_and_has_no_way_back_itself():
    document = owned(promoted(promoted(version=BLUE)), holder="o1")
    document = documents.begin_rollback(document, epoch=document.epoch, release_id="o1", reason="bad answers")
    document = documents.finish_rollback(document, epoch=document.epoch, now_s=3)
    assert (document.champion, document.previous) == (BLUE, None)
    entry = documents.outcome_of(document, "o1")
    assert (entry.outcome, entry.before, entry.after) == (Outcome.ROLLED_BACK, GREEN.digest, BLUE.digest)
    document = owned(document, holder="o2")
    with pytest.raises(StaleWriter, match="no previous version"):
        documents.begin_rollback(document, epoch=document.epoch, release_id="o2", reason="again")


def test_an_order_that_joins_an_abort_ends_in_the_same_write():
    document = owned(deploying(promoted(version=BLUE)), holder="o1", now_s=1e6)
    document = documents.begin_abort(document, epoch=document.epoch, reason="taken back")
    document = documents.join_order(document, epoch=document.epoch, order_id="o1")
    document = documents.finish_abort(document, epoch=document.epoch, now_s=2)
    assert documents.outcome_of(document, "r2").outcome is Outcome.ABORTED
    assert documents.outcome_of(document, "o1").outcome is Outcome.ROLLED_BACK
    assert document.order_id is None


@pytest.mark.parametrize("weight_pct", [-1, 100.1, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_refused(weight_pct):
    document = deploying()
    with pytest.raises(ValueError, match="0 to 100"):
        documents.set_candidate_weight(document, epoch=document.epoch, weight_pct=weight_pct)


def test_history_keeps_the_newest_entries_only():
    document = EMPTY
    for i in range(documents.MAX_HISTORY + 5):
        document = promoted(document, dataclasses.replace(GREEN, release_id=f"r{i}"))
    assert len(document.history) == documents.MAX_HISTORY
    assert document.history[-1].release_id == f"r{documents.MAX_HISTORY + 4}"
    assert documents.outcome_of(document, "r0") is None


@given(st.lists(st.sampled_from(["deploy", "promote", "abort", "rollback"]), max_size=12))
def test_every_reachable_document_survives_json(actions):
    document = EMPTY
    for number, action in enumerate(actions):
        document = documents.take_lease(document, holder=f"h{number}", now_s=number * 1e3, ttl_s=1)
        epoch = document.epoch
        try:
            if action == "deploy":
                document = documents.begin_deploy(
                    document, dataclasses.replace(GREEN, release_id=f"r{number}"), epoch=epoch
                )
            elif action == "promote":
                document = documents.promote(document, epoch=epoch, now_s=1, reason="x")
            elif action == "abort":
                document = documents.begin_abort(document, epoch=epoch, reason="x")
                document = documents.finish_abort(document, epoch=epoch, now_s=1)
            else:
                document = documents.begin_rollback(document, epoch=epoch, release_id=f"o{number}", reason="x")
        except StaleWriter:
            pass
    assert from_jsonable(ReleaseDocument, json.loads(json.dumps(to_jsonable(document)))) == document
