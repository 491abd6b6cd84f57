"""The request that nearly all are, answered on its connection: no task, no events, one write.

That is JSON of a few rows, whole, for a version in this process. Whatever is unusual, and above all whatever is wrong,
goes to the app, which answers the usual request with the same bytes and has the words for every other. A request that
was given a version keeps it on that way, so that the shares of the traffic table hold.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from clearway.serve.decode import decode
from clearway.serve.formats import AS_JSON
from clearway.serve.frames import Row
from clearway.serve.http import SECURITY_HEADERS, App, Headers
from clearway.serve.loaded import Loaded
from clearway.serve.refusal import Refusal
from clearway.serve.trace import traced
from clearway.serve.turns import MAX_INLINE_ROWS, Scored

if TYPE_CHECKING:
    from clearway.serve.app import ModelServer

Ask = Callable[[Loaded, Sequence[Row], Callable[[Scored], None]], None]

_OK = 200
_ACCEPTED = frozenset((b"*/*", AS_JSON.content_type))
# Callers that name one of these want more than the usual.
_SELDOM = frozenset((b"content-encoding", b"x-clearway-probe"))


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%s: %s\r\n" % pair for pair in headers)


_LAST_LINES = _lines(SECURITY_HEADERS)


class Exchange(Protocol):
    """One request's side of a connection."""

    def send(self, head: bytes, body: bytes) -> None:
        """Answer 200. `head`: all header lines that are not the server's own."""

    def answer_by(self, app: App) -> None:
        """Let an app answer."""


class AtOnce:
    """Answers requests of one server on one event loop.

    Args:
        ask: calls back with scores, or with what was raised, once the loop has taken in what waits.
    """

    def __init__(self, server: "ModelServer", ask: Ask) -> None:
        self._server, self._ask = server, ask

    def take(self, headers: Headers, body: bytes, exchange: Exchange) -> App | None:
        """Begin to answer one POST /invocations; or, with nothing done, the app that should."""
        server = self._server
        began = server.steady_s()
        named, limits, serving = dict(headers), server.limits, server.versions.serving
        if (
            named.get(b"content-type") != AS_JSON.content_type
            or named.get(b"accept", b"*/*") not in _ACCEPTED
            or not _SELDOM.isdisjoint(named)
            or len(body) > limits.max_body_bytes
            or server.num_in_flight >= limits.max_in_flight
            or serving.mirror is not None
        ):
            return server
        try:
            request = decode(body)
            version = server.choose(serving, named)
        except Refusal:
            return server
        if len(request.rows) > MAX_INLINE_ROWS or not isinstance(version, Loaded):
            return partial(server.answer_in_full, version)

        def answer(scores: Scored) -> None:
            server.num_in_flight -= 1
            if isinstance(scores, Exception):
                exchange.answer_by(partial(server.answer_in_full, version))
                return
            digest = version.digest
            trace = traced(named[b"traceparent"]) if b"traceparent" in named else b""
            request_id = server.request_id(named, trace)
            server.keep(request_id, request, scores, digest, serving.epoch)
            data = AS_JSON.write(scores, digest)
            exchange.send(_head(request_id, digest, trace, len(data)), data)
            took_s = server.steady_s() - began
            server.counters.count(_OK, digest, duration_s=took_s, is_probe=False, scores=scores)
            server.report_if_slow(took_s, _OK, digest, trace)
            server.feature_counts.offer(version.package, request.rows)

        server.num_in_flight += 1
        self._ask(version, request.rows, answer)
        return None


def _head(request_id: str, digest: str, trace: bytes, num_bytes: int) -> bytes:
    return b"content-type: %s\r\nx-clearway-model-digest: %s\r\nx-request-id: %s\r\n%s%scontent-length: %d\r\n" % (
        AS_JSON.content_type,
        digest.encode(),
        request_id.encode(),
        b"traceparent: %s\r\n" % trace if trace else b"",
        _LAST_LINES,
        num_bytes,
    )
