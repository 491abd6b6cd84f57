"""A container as its manifest starts it, as a process: variables, arguments, probes, callers, the signal to leave."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import yaml

import http_kit
from aws_kit import make_bucket, make_table
from clearway.__main__ import main
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.deploy.targets.standing import CALL_PATH, HOME
from clearway.infra.aws.client import client
from clearway.infra.aws.secrets import binary_secret
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.packaging.signing import install
from serving_kit import PRODUCT, ROW, expected_score, free_port, make_package
from targets_kit import SETTINGS

pytestmark = pytest.mark.slow
BIAS = 0.1


@pytest.fixture
def serving(aws: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An account in which a model serves; its digest. The settings of that account are this process's."""
    key = f"key-{tmp_path.name}"
    client("secretsmanager").create_secret(Name=key, SecretBinary=secrets.token_bytes(32))
    settings = SETTINGS | {
        "CLEARWAY__HOME": str(tmp_path / "driver"),
        "CLEARWAY__STORAGE__ROOT": f"s3://{make_bucket()}/store",
        "CLEARWAY__RELEASE_STORE__URL": f"dynamodb://{make_table()}",
        "CLEARWAY__AWS__SIGNING_SECRET": key,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    env = Environment.load()
    install(binary_secret(key), key_folder=env.home / "keys")
    ref = make_package(env, BIAS)
    champion = Version(uri=ref.uri, digest=ref.digest, release_id="r1")
    open_release_store(env).swap(ReleaseDocument(product=PRODUCT, champion=champion), expected_version=0)
    return ref.digest


def container_of(folder) -> tuple[dict[str, Any], dict[str, str]]:
    """The container of the written Deployment, and all its variables."""
    documents = list(yaml.safe_load_all((folder / f"{PRODUCT}-objects.yaml").read_text()))
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    (settings,) = [document for document in documents if document["kind"] == "ConfigMap"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    return container, settings["data"] | given


@contextmanager
def started(container: dict[str, Any], variables: dict[str, str], home, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """What the image's entry point runs; the folder that may be written lies here."""
    home.mkdir()
    moved = {name: str(home) if value == HOME else value for name, value in variables.items()}
    cloud = {name: value for name, value in os.environ.items() if not name.startswith("CLEARWAY")}
    command = [sys.executable, "-m", "clearway.serve.sagemaker", *container["args"]]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=cloud | moved)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_container_starts_answers_its_probes_and_callers_and_leaves_in_time(serving, tmp_path):
    assert main(["render", "kubernetes", "--product", PRODUCT, "--out", str(tmp_path / "out")]) == 0
    container, variables = container_of(tmp_path / "out")
    port = free_port()
    with started(container, variables, tmp_path / "home", port) as process:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            wait_until_it_answers(process, f"http://127.0.0.1:{port}{container[probe]['httpGet']['path']}")
        answer = http_kit.post(f"http://127.0.0.1:{port}{CALL_PATH}", json={"instances": [ROW]}).json()
        score = pytest.approx(expected_score(BIAS, ROW), abs=1e-6)
        assert answer == {"predictions": [score], "model_digest": serving}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=http_kit.PATIENCE_S) == 0


def wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> None:
    deadline_s = time.monotonic() + http_kit.PATIENCE_S
    while True:
        try:
            if http_kit.get(url).status_code == 200:
                return
        except httpx.TransportError:
            assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@pytest.mark.parametrize("target", ["ecs", "kubernetes", "kserve"])
def test_each_target_is_written_down_and_nothing_of_the_key_is(serving, tmp_path, target, capsys):
    assert main(["render", target, "--product", PRODUCT, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    texts = {file.name: file.read_text() for file in tmp_path.iterdir() if file.is_file()}
    assert (
        sorted(texts)
        == {
            "ecs": [f"{PRODUCT}-ecs.json"],
            "kubernetes": [f"{PRODUCT}-objects.yaml", f"{PRODUCT}-route.yaml"],
            "kserve": [f"{PRODUCT}-kserve.yaml"],
        }[target]
    )
    assert all(name in said for name in texts)
    assert f"{serving[:12]}: 100 %" in said
    key, everything = binary_secret(Environment.load().aws.signing_secret), "".join(texts.values())
    assert serving in everything
    assert key.hex() not in everything
    assert "admin.token" not in everything


def test_a_product_that_nothing_serves_is_refused(serving, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLEARWAY__RELEASE_STORE__URL", f"dynamodb://{make_table()}")
    assert main(["render", "kserve", "--product", PRODUCT, "--out", str(tmp_path / "out")]) == 2
    assert "release a model first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
