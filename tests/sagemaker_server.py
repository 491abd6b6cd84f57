"""The account of sagemaker_account.py over real HTTP, in this process; what it does not have goes on to moto."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from aws_kit import DROPPED_HEADERS
from sagemaker_account import Account, Refused


class Stage:
    """The account that is served now; one after another may be, under the same address."""

    def __init__(self) -> None:
        self.account: Account | None = None
        self.address = ""


@contextlib.contextmanager
def sagemaker_server() -> Iterator[Stage]:
    """Serve whichever account is put on the stage."""
    stage = Stage()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body go out in two pieces; the second would wait 40 ms for an answer

        def log_message(self, *_: object) -> None:
            return

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                status, headers, data = self._handled(body)
            except Refused as refused:
                status = refused.status
                headers = {"x-amzn-errortype": refused.code, "content-type": "application/json"}
                data = json.dumps(
                    {"__type": refused.code, "message": str(refused), "Message": str(refused)} | refused.more
                ).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else data)

        def _handled(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            account = stage.account
            assert account, "no account is served"
            target, path = self.headers.get("x-amz-target", ""), urlsplit(self.path).path
            service, _, operation = target.partition(".")
            is_asked = service in {"SageMaker", "GraniteServiceVersion20100801"}  # the second is CloudWatch
            if is_asked and account.knows(operation):
                answer = account.handle(operation, json.loads(body))
                return 200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(answer).encode()
            if path.startswith("/endpoints/"):
                given = {name.lower(): value for name, value in self.headers.items()}
                data, variant = account.invoke(path.split("/")[2], body, given)
                return 200, {"content-type": "application/json", "x-amzn-invoked-production-variant": variant}, data
            account.flush_captured()
            return _passed_on(account.upstream, self, body)

    for verb in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{verb}", Handler._answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stage.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stage
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _passed_on(upstream: str, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
    assert upstream, f"nobody answers {handler.command} {handler.path} here"
    with contextlib.closing(HTTPConnection(upstream.removeprefix("http://"), timeout=60)) as line:
        line.request(handler.command, handler.path, body=body, headers=dict(handler.headers.items()))
        with line.getresponse() as answer:
            data = answer.read()
    dropped = DROPPED_HEADERS if handler.command == "HEAD" else DROPPED_HEADERS | {"content-length"}
    return answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in dropped}, data
