"""Reasons to stop: signals, a file, and a spot notice from a server that speaks as EC2's metadata service does."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clearway.engine.interrupt import Interrupts, SpotNotices

TOKEN = "t0ken"


class Metadata(BaseHTTPRequestHandler):
    """Answers only who brings a token, as version 2 of the service does."""

    def do_PUT(self) -> None:
        self.server.num_tokens += 1
        self._answer(200, TOKEN if "X-aws-ec2-metadata-token-ttl-seconds" in self.headers else "")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            self._answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.server.notice:
            self._answer(200, self.server.notice)
        else:
            self._answer(404, "")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.notice, server.num_tokens = "", 0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_notice_is_read_with_one_token(service):
    notices = SpotNotices(url(service))
    assert [notices.read(), notices.read()] == ["", ""]
    service.notice = '{"action": "terminate", "time": "2026-01-02T03:04:05Z"}'
    assert notices.read() == "terminate at 2026-01-02T03:04:05Z"
    assert service.num_tokens == 1


def test_an_old_token_is_renewed(service):
    now_s = [0.0]
    notices = SpotNotices(url(service), clock_s=lambda: now_s[0])
    notices.read()
    now_s[0] = 200.0
    notices.read()
    assert service.num_tokens == 2


def test_a_notice_nobody_can_read_is_a_notice(service):
    service.notice = "leave!"
    assert "leave!" in SpotNotices(url(service)).read()


def test_a_spot_notice_is_a_reason_to_stop(service):
    interrupts = Interrupts(metadata_url=url(service), poll_s=0.01)
    assert not interrupts.should_stop()
    service.notice = '{"action": "stop", "time": "2026-01-02T03:04:05Z"}'
    _until(interrupts.should_stop)
    assert interrupts.reason == "spot notice: stop at 2026-01-02T03:04:05Z"
    interrupts.close()


def test_a_silent_service_is_no_reason_and_is_said_once(caplog):
    interrupts = Interrupts(metadata_url="http://127.0.0.1:9", poll_s=0.001)
    _until(lambda: bool(caplog.records))
    assert not interrupts.should_stop()
    interrupts.close()
    assert len(caplog.records) == 1


def test_a_file_is_a_reason(tmp_path, monkeypatch):
    interrupts = Interrupts(file=tmp_path / "stop")
    monkeypatch.setattr("clearway.engine.interrupt._FILE_LOOK_S", 0.0)
    assert not interrupts.should_stop()
    (tmp_path / "stop").touch()
    assert interrupts.should_stop()
    assert "stop exists" in interrupts.reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_reason_and_the_first_counts(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        interrupts = Interrupts()
        interrupts.on_signals()
        os.kill(os.getpid(), number)
        interrupts.ask("later")
        assert interrupts.should_stop()
        assert interrupts.reason == f"signal {number.name}"
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def _until(is_true) -> None:
    waiting = threading.Event()
    for _ in range(1000):
        if is_true():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came true")
