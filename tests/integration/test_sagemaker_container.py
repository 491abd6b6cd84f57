"""The process that a SageMaker container runs, asked as SageMaker asks it."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.serve.logged import logged_by
from serving_kit import PRODUCT, ROW, expected_score, free_port, golden_rows, make_package, variables_of

pytestmark = pytest.mark.slow


def start(env, ref, port):
    section = {"MODEL_URI": ref.uri, "MODEL_DIGEST": ref.digest}
    variables = variables_of(env) | {f"CLEARWAY__SAGEMAKER__{name}": value for name, value in section.items()}
    command = [sys.executable, "-m", "clearway.serve.sagemaker", "serve", "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE)


def ask(port, path, body=None, attribute=""):
    headers = {"content-type": "application/json"}
    if attribute:
        headers["X-Amzn-SageMaker-Custom-Attributes"] = attribute
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_container_answers_pings_callers_and_our_own_questions(env):
    ref, port = make_package(env, 0.1), free_port()
    process = start(env, ref, port)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port, "/ping")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        body = json.dumps({"instances": [ROW]}).encode()
        wanted = {"predictions": [pytest.approx(expected_score(0.1, ROW), abs=1e-6)], "model_digest": ref.digest}
        assert ask(port, "/invocations", body) == wanted
        assert ask(port, "/invocations", body, "clearway=probe") == wanted | {"is_probe": True}
        assert ask(port, "/invocations", b"{}", "clearway=examples") == {"instances": golden_rows()}
        split = {"columns": list(ROW), "data": [list(ROW.values())]}
        logged = {"dataframe_split": split, "keys": ["k"], "event_times": ["2013-04-01T00:00:00Z"], "batch_id": "b"}
        ask(port, "/invocations", json.dumps(logged).encode(), "clearway=logged")
        assert logged_by(open_storage(env.store_root), Layout(env.store_root, PRODUCT), "b") == {"k": ref.digest}
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            ask(port, "/admin/state")
        refused.value.close()
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode in (0, -15)


def test_a_container_whose_package_does_not_verify_ends(env):
    ref = make_package(env, 0.1)
    storage = open_storage(env.store_root)
    storage.write(f"{ref.uri}/model.onnx", storage.read(f"{ref.uri}/model.onnx")[:-1] + b"\x00")
    process = start(env, ref, free_port())
    _, log = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot start" in log.decode()
