"""HTTP on one connection: uvicorn's own, with time limits, and with the usual request answered without a task.

uvicorn's parser callbacks stay; what is added looks at whole messages only. A request may be answered at once if it is
plain (`_is_plain`) and all of it came in one piece; any other goes the usual way, with the body that has come so far.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from clearway.serve.app import ModelServer
from clearway.serve.http import App, Headers

KEEP_ALIVE_S = 75  # longer than common proxies' 60 s, so that they close first and no request meets a closing socket
HEADER_TIMEOUT_S = 10.0  # a connection that has not sent whole headers by then is idle or hostile
# What arrives in one piece; the usual way stops reading there until the app wants more.
MAX_AT_ONCE_BYTES = 65_536
_PATH, _METHOD = b"/invocations", b"POST"
_LOOK_S = HEADER_TIMEOUT_S / 4


class _Whole:
    """A plain request that may be answered at once; has what uvicorn's protocol looks at in its own cycles."""

    __slots__ = ("_protocol", "body", "disconnected", "headers", "keep_alive", "more_body", "response_complete")

    message_event = asyncio.Event()  # which nobody waits for

    def __init__(self, protocol: "ServingProtocol", headers: Headers) -> None:
        self._protocol, self.headers, self.body, self.more_body = protocol, headers, b"", True
        self.disconnected, self.keep_alive, self.response_complete = False, True, False

    def send(self, head: bytes, body: bytes) -> None:
        """The whole answer by one write."""
        self.response_complete = True
        self._protocol.send_whole(self, head, body)

    def answer_by(self, app: App) -> None:
        """The usual way, from here on."""
        self._protocol.answer_in_full(self, app)


class ServingProtocol(HttpToolsProtocol):
    """One connection.

    Connections whose headers do not arrive, and idle ones, are closed by one coarse timer per connection that looks at
    a time stamp; a timer per request would cost more than the traffic split.
    """

    _waiting_since_s: float | None = None  # for headers that have begun, or for the first ones
    _idle_since_s: float | None = None  # after an answer
    _timer: asyncio.TimerHandle | None = None
    _whole: _Whole | None = None  # whose headers have come and whose body has not
    _own_headers: Headers | None = None
    _own_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.config.loaded_app
        self._at_once = app.at_once if isinstance(app, ModelServer) else None
        self._waiting_since_s = self.loop.time()
        self._timer = self.loop.call_later(_LOOK_S, self._close_if_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._whole is not None:  # the rest of its body is still to come
            whole, self._whole = self._whole, None
            self.answer_in_full(whole, self.app)

    def on_message_begin(self) -> None:
        """The base class without its scope, which the usual request never needs."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._idle_since_s = None
        if self._waiting_since_s is None:
            self._waiting_since_s = self.loop.time()

    def on_headers_complete(self) -> None:
        self._waiting_since_s = None
        if self._is_plain():
            self._whole = self.cycle = _Whole(self, self.headers)  # type: ignore[assignment]
        else:
            self.scope = self._make_scope(self.headers)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._whole is None:
            super().on_body(body)
        else:
            self._whole.body += body

    def on_message_complete(self) -> None:
        whole, self._whole = self._whole, None
        if whole is None or self._at_once is None:
            super().on_message_complete()
            return
        whole.more_body = False
        app = self._at_once.take(whole.headers, whole.body, whole)
        if app is not None:
            self.answer_in_full(whole, app)

    def on_response_complete(self) -> None:
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._idle_since_s = self.loop.time()

    def send_whole(self, whole: _Whole, head: bytes, body: bytes) -> None:
        """Answer 200, unless the caller has gone."""
        if whole.disconnected or self.transport.is_closing():
            return
        last = b"\r\n" if whole.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((self._begin_answer(), head, last, body)))
        if not whole.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def answer_in_full(self, whole: _Whole, app: App) -> None:
        """Give a request to an app, as the base class would have."""
        scope: Any = self._make_scope(whole.headers)
        scope["method"], scope["path"], scope["raw_path"] = _METHOD.decode(), _PATH.decode(), _PATH
        scope["query_string"] = b""
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=whole.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += whole.body
        cycle.more_body, cycle.disconnected = whole.more_body, whole.disconnected
        if whole.body or not whole.more_body or whole.disconnected:
            cycle.message_event.set()
        if self.cycle is whole:  # type: ignore[comparison-overlap]
            self.cycle = cycle
        self._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _make_scope(self, headers: Headers) -> Any:
        """The base class makes it where a message begins; what has been read of another one by now stays."""
        before = self.url, self.headers, self.expect_100_continue, self.scope
        super().on_message_begin()
        scope: Any = self.scope
        self.url, self.headers, self.expect_100_continue, self.scope = before
        scope["headers"] = headers
        return scope

    def _begin_answer(self) -> bytes:
        """Status line and the server's own headers of an answer 200; uvicorn makes a new list of them once a second."""
        own = self.server_state.default_headers
        if self._own_headers is not own:
            self._own_headers = own
            self._own_lines = STATUS_LINE[200] + b"".join(b"%s: %s\r\n" % pair for pair in own)
        return self._own_lines

    def _is_plain(self) -> bool:
        """Whether a request whose headers are complete may be answered at once."""
        if self._at_once is None or self.url != _PATH or self.parser.get_method() != _METHOD:
            return False
        is_free = self.cycle is None or self.cycle.response_complete  # else it is pipelined, and waits
        if not is_free or self.expect_100_continue or self.flow.write_paused or self.root_path:
            return False
        if (
            self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or self.parser.should_upgrade()
        ):
            return False
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            return False
        for name, value in self.headers:
            if name == b"content-length":
                return value.isdigit() and int(value) <= MAX_AT_ONCE_BYTES
        return False

    def _close_if_waiting(self) -> None:
        now_s = self.loop.time()
        is_late = self._waiting_since_s is not None and now_s - self._waiting_since_s >= HEADER_TIMEOUT_S
        is_idle = self._idle_since_s is not None and now_s - self._idle_since_s >= KEEP_ALIVE_S
        if is_late or is_idle:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(_LOOK_S, self._close_if_waiting)
