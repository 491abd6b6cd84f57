"""Proofs: golden answers within tolerance, live answers by the right digest; nothing unmeasured passes."""

import pytest

from clearway.contracts.release_document import Version
from clearway.contracts.verdict import Verdict
from clearway.deploy.proofs import GOLDEN_TOLERANCE, NUM_LIVE_PROBES, check_golden, compare_golden, probe_live
from clearway.infra.storage import to_path
from serving_kit import controls_of, make_package


@pytest.fixture
def controls(env, endpoint):
    return controls_of(env, endpoint)


def version_of(ref):
    return Version(uri=ref.uri, digest=ref.digest, release_id="r")


@pytest.mark.parametrize(
    ("scores", "golden", "verdict"),
    [
        ([0.5, 0.7], [0.5, 0.7], Verdict.PASS),
        ([0.5 + GOLDEN_TOLERANCE / 2], [0.5], Verdict.PASS),
        ([0.5 + GOLDEN_TOLERANCE * 2], [0.5], Verdict.FAIL),
        ([0.5, 0.7, 0.9001], [0.5, 0.7, 0.9], Verdict.FAIL),
        ([0.5], [0.5, 0.7], Verdict.FAIL),
        ([], [], Verdict.FAIL),
        ([float("nan")], [0.5], Verdict.FAIL),
        ([0.5], [float("nan")], Verdict.FAIL),
        ([float("inf")], [float("inf")], Verdict.FAIL),
    ],
)
def test_golden_answers_must_be_the_recorded_ones(scores, golden, verdict):
    assert compare_golden(scores, golden).verdict is verdict


def test_the_loaded_version_itself_is_asked(env, endpoint, controls):
    good, bad = make_package(env, 0.3), make_package(env, 0.5, golden_shift=0.01)
    for ref in (good, bad):
        endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({good.digest: 100.0}, epoch=1)
    assert check_golden(controls, version_of(good)).verdict is Verdict.PASS
    failed = check_golden(controls, version_of(bad))
    assert failed.verdict is Verdict.FAIL
    assert failed.value == pytest.approx(0.01, abs=1e-6)


def test_a_package_damaged_after_loading_fails_its_proof(env, endpoint, controls):
    ref = make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    golden = to_path(ref.uri) / "golden.json"
    golden.write_bytes(golden.read_bytes().replace(b"AA", b"DL"))
    check = check_golden(controls, version_of(ref))
    assert check.verdict is Verdict.FAIL
    assert "golden.json" in check.reason


def test_a_version_that_is_not_loaded_fails(env, controls):
    assert check_golden(controls, version_of(make_package(env, 0.3))).verdict is Verdict.FAIL


def test_live_answers_must_all_come_from_one_version(env, endpoint, controls):
    one, two = make_package(env, 0.3), make_package(env, 0.6)
    for ref in (one, two):
        endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({one.digest: 100.0}, epoch=1)
    assert probe_live(controls, one.digest).verdict is Verdict.PASS
    wrong = probe_live(controls, two.digest)
    assert wrong.verdict is Verdict.FAIL
    assert f"{NUM_LIVE_PROBES} of {NUM_LIVE_PROBES} live answers came from {one.digest}" in wrong.reason


def test_probes_never_enter_the_prediction_log(env, endpoint, controls):
    ref = make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    probe_live(controls, ref.digest)
    check_golden(controls, version_of(ref))
    log = endpoint.server.prediction_log
    assert (log.num_pending, log.num_written) == (0, 0)
