"""The server as a process: start, drain, restart offline, refuse a second start, outlive hostile connections."""

import http.client
import json
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clearway.contracts.errors import Unavailable
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage, to_path
from clearway.serve.logged import logged_by
from serving_kit import (
    PRODUCT,
    ROW,
    client_of,
    environment_at,
    expected_score,
    free_port,
    make_package,
    running_server,
    start_server,
    variables_of,
)

pytestmark = pytest.mark.slow  # every test starts processes
HANG_S = 120.0  # the server ends what is late after 10 s; this only ends a test that hangs


@pytest.fixture
def local(env):
    return environment_at(env, free_port())


def serve_one(env, bias=0.3):
    client, ref = client_of(env), make_package(env, bias)
    epoch = client.state().epoch + 1
    client.load(uri=ref.uri, digest=ref.digest, epoch=epoch)
    client.set_weights({ref.digest: 100.0}, epoch=epoch)
    return ref


def post(connection, keys):
    body = json.dumps({"instances": [ROW] * len(keys), "keys": keys, "batch_id": "2013-04-01"})
    connection.request("POST", "/invocations", body, {"content-type": "application/json"})
    with connection.getresponse() as response:
        response.read()
        return response.status


def address(env):
    host, port = env.endpoint.url.removeprefix("http://").split(":")
    return host, int(port)


def test_sigterm_under_load_drains_and_loses_no_answered_row(local):
    answered, is_stopping = set(), threading.Event()

    def ask(number):
        connection = http.client.HTTPConnection(*address(local), timeout=HANG_S)
        try:
            for i in range(100_000):
                keys = [f"{number}-{i}-{j}" for j in range(20)]
                assert post(connection, keys) == 200
                answered.update(keys)
        except (OSError, http.client.HTTPException):
            assert is_stopping.is_set(), "the server dropped a request before it was told to stop"
        finally:
            connection.close()

    with running_server(local) as server:
        serve_one(local)
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + HANG_S
        while len(answered) <= 500:
            assert time.monotonic() < deadline, f"only {len(answered)} rows are answered"
            time.sleep(0.02)
        is_stopping.set()
        assert server.stop(HANG_S) == 0
        for thread in threads:
            thread.join(HANG_S)
    logged = set(logged_by(open_storage(local.store_root), Layout(local.store_root, PRODUCT), "2013-04-01"))
    assert len(answered) > 500
    assert answered <= logged


def test_a_restart_serves_offline_with_storage_gone_and_the_way_back_loaded(local):
    with running_server(local) as server:
        blue, green = serve_one(local, 0.3), serve_one(local, 0.6)
        server.kill()
    shutil.rmtree(to_path(local.store_root))
    with running_server(local):
        client = client_of(local)
        assert client.predict([ROW]) == ([pytest.approx(expected_score(0.6, ROW), abs=1e-6)], green.digest)
        epoch = client.state().epoch + 1
        assert blue.digest in client.state().loaded
        client.set_weights({blue.digest: 100.0}, epoch=epoch)
        assert client.predict([ROW])[1] == blue.digest


def test_a_second_server_of_the_product_and_a_taken_port_are_refused_clearly(local):
    def start(env, product):
        command = [sys.executable, "-m", "clearway.serve", "--product", product, "--port", str(address(env)[1])]
        return subprocess.run(command, capture_output=True, text=True, env=variables_of(env), timeout=60, check=False)

    with running_server(local):
        second = start(environment_at(local, free_port()), PRODUCT)
        taken = start(local, "other")
    assert (second.returncode, taken.returncode) == (2, 2)
    assert "another model server already uses" in second.stderr
    assert "choose another --port" in taken.stderr
    strange = start(local, "../x")
    assert strange.returncode == 2
    assert "no product name" in strange.stderr


def test_logs_are_json_lines_and_hold_no_token(local):
    with running_server(local) as server:
        serve_one(local)
        token = local.admin_token_file.read_text()
        assert server.stop() == 0
        lines = server.log_file.read_text().splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()
    assert token not in "\n".join(lines)
    assert stat.S_IMODE(local.admin_token_file.stat().st_mode) == 0o600


def test_it_listens_on_loopback_only_and_names_no_software(local):
    with running_server(local):
        connection = http.client.HTTPConnection(*address(local), timeout=HANG_S)
        connection.request("GET", "/healthz")
        with connection.getresponse() as response:
            headers = {name.lower() for name, _ in response.getheaders()}
        connection.close()
        port = f"{address(local)[1]:04X}"
        table = Path("/proc/net/tcp").read_text(encoding="ascii")
        listening = re.findall(rf"\d+: ([0-9A-F]+):{port} \S+ 0A", table)
    assert "server" not in headers
    assert listening == ["0100007F"]


def exchange(env, data):
    """Send raw bytes; what came back until the server closed. Raises: TimeoutError if it does not."""
    received = b""
    with socket.create_connection(address(env), timeout=HANG_S) as connection:
        connection.sendall(data)
        while part := connection.recv(65536):
            received += part
    return received


RAW = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50 + b"\r\n\r\n",
    "two lengths": b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "length and chunks": b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "bad chunk": b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    "declared too large": b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"content-length: 99999999999\r\n\r\n",
}


def test_hostile_connections_end_and_good_callers_are_served(local):
    with running_server(local):
        ref = serve_one(local)
        for name, data in RAW.items():
            received = exchange(local, data)
            assert b" 5" not in received[:12], (name, received[:80])
        idle = [socket.create_connection(address(local), timeout=HANG_S) for _ in range(200)]
        slow = socket.create_connection(address(local), timeout=HANG_S)
        slow.sendall(
            b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        )
        assert client_of(local).predict([ROW])[1] == ref.digest
        assert b" 408 " in slow.recv(65536)
        assert all(connection.recv(10) == b"" for connection in idle)
        for connection in [*idle, slow]:
            connection.close()


def test_a_stopped_server_is_unavailable(local):
    server = start_server(local)
    assert server.stop() == 0
    with pytest.raises(Unavailable):
        client_of(local).state()
