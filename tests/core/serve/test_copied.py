"""A shadow's container: every copy is answered with 200, says what it came to, and is logged nowhere."""

import json

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.serve.logged import logged_by
from clearway.serve.sagemaker import make_container, shadow_columns
from serving_kit import PRODUCT, ROW, call, expected_score, golden_rows, make_package

JSON = (b"content-type", b"application/json")


@pytest.fixture
def ref(env):
    return make_package(env, 0.1)


@pytest.fixture
def container(env, ref):
    told = {
        "model_uri": ref.uri,
        "model_digest": ref.digest,
        "is_shadow": True,
        "shadow_columns": '["carrier", "hour"]',
    }
    found = make_container(env.model_copy(update={"sagemaker": env.sagemaker.model_copy(update=told)}))
    yield found
    found.server.prediction_log.close()
    found.server.versions.close()


def ask(container, body, *headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = call(container, "POST", "/invocations", data, headers=[JSON, *headers])
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)


def test_a_copy_is_scored_as_a_request_is_and_names_its_slices(container, ref):
    found = ask(container, {"instances": [ROW, ROW | {"carrier": None}]})
    assert found["model_digest"] == ref.digest
    assert found["predictions"][0] == pytest.approx(expected_score(0.1, ROW), abs=1e-6)
    assert found["slices"] == [
        [f"carrier={ROW['carrier']}", f"hour={ROW['hour']}"],
        ["carrier=None", f"hour={ROW['hour']}"],
    ]


def test_whatever_the_caller_accepts_the_copy_is_answered_as_json(container, ref):
    found = ask(container, {"instances": [ROW]}, (b"accept", b"text/csv"))
    assert len(found["predictions"]) == 1


def test_a_copy_without_scores_says_so(container, ref):
    assert ask(container, {"instances": [{"hour": 1.0}]}) == {
        "model_digest": ref.digest,
        "failed": 422,
        "slices": [["carrier=None", "hour=1.0"]],
    }
    assert ask(container, b"{") == {"model_digest": ref.digest, "failed": 400}
    too_large = b" " * (container.server.limits.max_body_bytes + 1)
    assert ask(container, too_large) == {"model_digest": ref.digest, "failed": 413}


def test_a_model_that_crashes_is_an_answer_too(container, ref, monkeypatch):
    monkeypatch.setattr(container.server, "choose", lambda *_: 1 / 0)
    assert ask(container, {"instances": [ROW]})["failed"] == 500


def test_a_copy_that_is_too_much_says_that_it_was_not_tried(container, ref, monkeypatch):
    monkeypatch.setattr(container.server, "num_in_flight", container.server.limits.max_in_flight)
    assert ask(container, {"instances": [ROW]})["failed"] == 503


@pytest.mark.parametrize("attribute", [b"", b"clearway=logged"])
def test_nothing_of_a_copy_is_logged_as_an_answer_that_a_caller_got(env, container, attribute):
    split = {"columns": list(ROW), "data": [list(ROW.values())]}
    body = {"dataframe_split": split, "keys": ["k"], "event_times": ["2013-04-01T00:00:00Z"], "batch_id": "b"}
    found = ask(container, body, (b"x-amzn-sagemaker-custom-attributes", attribute))
    assert len(found["predictions"]) == 1
    container.server.prediction_log.flush()
    assert container.server.prediction_log.num_written == 0
    assert logged_by(open_storage(env.store_root), Layout(env.store_root, PRODUCT), "b") == {}


def test_probes_are_probes(container):
    attribute = b"x-amzn-sagemaker-custom-attributes"
    assert ask(container, {"instances": [ROW]}, (attribute, b"clearway=probe"))["is_probe"] is True
    assert ask(container, {}, (attribute, b"clearway=examples")) == {"instances": golden_rows()}
    assert call(container, "GET", "/ping").status == 200


@pytest.mark.parametrize("given", ["carrier", '{"a": 1}', "[1]"])
def test_columns_that_are_no_list_are_refused(env, given):
    told = env.sagemaker.model_copy(update={"shadow_columns": given})
    with pytest.raises(ConfigError, match="allowed: a JSON list of texts"):
        shadow_columns(env.model_copy(update={"sagemaker": told}))
