"""The model server as a plain ASGI app: its own dispatch on the hot path, FastAPI for documentation and admin calls."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from clearway.contracts.observed import Mirrored, Observed
from clearway.infra.clock import Clock
from clearway.serve.answering import Answering, SharedRefusal
from clearway.serve.counters import GONE, LATENCY_BOUNDS_S, Counters
from clearway.serve.decode import Request, decode
from clearway.serve.http import (
    BODY_TIMEOUT_S,
    JSON_TYPE,
    MAX_BODY_BYTES,
    App,
    Disconnected,
    Headers,
    Receive,
    Scope,
    Send,
    check_json_type,
    read_body,
    send_bytes,
    send_refusal,
)
from clearway.serve.local_copy import is_token
from clearway.serve.mirror import Mirroring
from clearway.serve.prediction_log import Entry, PredictionLog
from clearway.serve.refusal import Refusal
from clearway.serve.traffic import ALL_PCT, sticky_point
from clearway.serve.versions import Serving, Version, Versions

log = logging.getLogger("clearway.serve")

MAX_REQUEST_ID = 64  # characters of a caller's own x-request-id
OVERLOADED, CRASHED = 503, 500
MAX_MESSAGE = 2_000  # characters; a text that names a caller's field must not grow with it
WATCH_S = 0.5  # seconds between two looks at the dead-man timer, which is set in seconds
MAX_IN_FLIGHT = 256  # requests beyond this wait longer than a caller would; they are told to come back
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_METHODS = {
    "/invocations": ("POST",),
    "/ping": ("GET", "HEAD"),
    "/healthz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may cost."""

    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout_s: float = BODY_TIMEOUT_S
    max_in_flight: int = MAX_IN_FLIGHT


class ModelServer:
    """ASGI app of one product.

    Args:
        token: bearer token of /admin/*.
        make_pages: builds the FastAPI app for /docs, /openapi.json and /admin/*; called in a thread once the server
            answers, because its import costs as much as the rest of the start.
        random_source: chooses a version for callers without a sticky key.
    """

    def __init__(
        self,
        *,
        versions: Versions,
        prediction_log: PredictionLog,
        clock: Clock,
        token: str,
        make_pages: "Callable[[ModelServer], App]",
        limits: Limits,
        random_source: random.Random,
    ) -> None:
        self.versions, self.prediction_log, self.counters = versions, prediction_log, Counters()
        self._clock, self._token, self._limits, self._random = clock, token, limits, random_source
        self._make_pages = make_pages
        self._making_pages: asyncio.Future[App] | None = None
        self._answering = Answering()
        self._num_in_flight = 0
        self._id_prefix, self._id_count = uuid.uuid4().hex[:12], 0
        self.mirroring = Mirroring(process_id=self._id_prefix, ask=self._answering.ask_unheard)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if path == "/invocations" and method == "POST":
                await self._invocations(scope, receive, send)
            elif path in _METHODS:
                await self._plain(path, method, send)
            else:
                await self._other(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._lifespan(receive, send)

    async def _invocations(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        is_probe = b"x-clearway-probe" in headers
        status, digest, chosen, scores = CRASHED, "", "", list[float]()  # until an answer went out
        is_callers_fault = False
        self._num_in_flight += 1
        try:
            if self._num_in_flight > self._limits.max_in_flight:
                raise Refusal(503, "overloaded", "the server is at its limit of requests; retry after a second")
            request = await self._read(headers, receive)
            serving = self.versions.serving
            version = self._choose(serving, headers)
            digest = chosen = version.digest
            if digest == serving.stable:
                scores = await self._answering.score(version, request.rows)
            else:
                scores, digest = await self._answering.score_safely(serving, version, request.rows)
            request_id = self._request_id(headers)
            if not is_probe:
                self._log(request_id, request, scores, digest, serving.epoch)
            await send_bytes(send, 200, _answer(scores, digest), self._headers(request_id, digest))
            status = 200
            if serving.mirror is not None and not is_probe:
                self._offer_copy(serving, request, scores, digest, chosen)
        except Refusal as refusal:
            status, scores = refusal.status, []
            is_callers_fault = refusal.code == "bad_value" or isinstance(refusal, SharedRefusal)
            await send_refusal(send, refusal, [(b"retry-after", b"1")] if status == OVERLOADED else None)
        except Disconnected:
            status, scores = GONE, []
        finally:
            self._num_in_flight -= 1
            took_s = time.perf_counter() - began
            self.counters.count(
                status,
                digest,
                duration_s=took_s,
                is_probe=is_probe,
                scores=scores,
                instead_of=chosen if chosen != digest else "",
                is_callers_fault=is_callers_fault,
            )

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> Request:
        check_json_type(headers)
        limits = self._limits
        data = await read_body(receive, headers, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        return decode(data)

    def _choose(self, serving: Serving, headers: dict[bytes, bytes]) -> Version:
        traffic = serving.traffic
        if traffic.only is not None:
            return serving.loaded[traffic.only]
        if traffic.is_empty:
            raise Refusal(503, "no_model", "no model takes traffic yet; release one, or run the reconciler")
        key = headers.get(b"x-clearway-sticky-key")
        point = self._random.random() * ALL_PCT if key is None else sticky_point(key)
        return serving.loaded[traffic.choose(point)]

    def _offer_copy(self, serving: Serving, request: Request, scores: list[float], digest: str, chosen: str) -> None:
        candidate = serving.loaded.get(serving.mirror.digest) if serving.mirror else None
        if candidate is not None and serving.mirror is not None and digest == chosen == serving.stable:
            self.mirroring.offer(serving.mirror, candidate, digest, request.rows, scores)

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id", b"")
        if given and len(given) <= MAX_REQUEST_ID and given.replace(b"-", b"").isalnum():
            return given.decode("ascii")
        self._id_count += 1
        return f"{self._id_prefix}-{self._id_count}"

    def _log(self, request_id: str, request: Request, scores: list[float], digest: str, epoch: int) -> None:
        self.prediction_log.offer(
            Entry(
                request_id,
                request.keys,
                request.batch_id,
                request.event_times,
                scores,
                digest,
                epoch,
                self._clock.now_s(),
            )
        )

    @staticmethod
    def _headers(request_id: str, digest: str) -> Headers:
        return [JSON_TYPE, (b"x-clearway-model-digest", digest.encode()), (b"x-request-id", request_id.encode())]

    async def _plain(self, path: str, method: str, send: Send) -> None:
        if method not in _METHODS[path]:
            allow = ", ".join(_METHODS[path])
            refusal = Refusal(405, "method_not_allowed", f"{path} does not take that method; allowed: {allow}")
            await send_refusal(send, refusal, [(b"allow", allow.encode())])
            return
        status, body, kind = 200, b"{}", JSON_TYPE
        if path == "/metrics":
            body, kind = self._metrics(), _TEXT
        elif path == "/ping" and self.versions.serving.traffic.is_empty:
            status, body = 503, b'{"error":{"code":"no_model","message":"no model takes traffic yet"}}'
        await send_bytes(send, status, body, [kind], is_head=method == "HEAD")

    def observed(self) -> Observed:
        """What every version did for callers since this process started."""
        return Observed(
            server_id=self._id_prefix,
            at_s=self._clock.now_s(),
            epoch=self.versions.serving.epoch,
            latency_bounds_s=LATENCY_BOUNDS_S,
            arms={digest: arm.counts() for digest, arm in self.counters.arms.items() if digest},
        )

    def mirrored(self, *, first: int) -> Mirrored:
        """Rows that both versions were given, from this number on; on the event loop."""
        return self.mirroring.read(first=first, at_s=self._clock.now_s(), epoch=self.versions.serving.epoch)

    def _metrics(self) -> bytes:
        serving, rows = self.versions.serving, self.prediction_log
        weights = {digest: serving.traffic.weights_pct.get(digest, 0.0) for digest in serving.loaded}
        gauges = {
            "loaded_versions": len(serving.loaded),
            "broken_versions": len(serving.broken),
            "epoch": serving.epoch,
            "in_flight_requests": self._num_in_flight,
            "prediction_log_pending_rows": rows.num_pending,
        }
        totals = {
            "prediction_log_written_rows_total": rows.num_written,
            "prediction_log_lost_rows_total": rows.num_lost,
            "mirrored_rows_total": self.mirroring.num_rows,
            "mirror_dropped_requests_total": self.mirroring.num_dropped,
        }
        return self.counters.render(gauges=gauges, totals=totals, weights=weights)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        is_admin = path.startswith("/admin/")
        if not is_admin and path not in {"/docs", "/openapi.json"}:
            await send_refusal(send, Refusal(404, "not_found", "no such path; see /docs"))
            return
        headers = dict(scope["headers"])
        if is_admin and not is_token(headers.get(b"authorization", b""), self._token):
            refusal = Refusal(401, "unauthorized", "admin calls need the bearer token of the server's token file")
            await send_refusal(send, refusal, [(b"www-authenticate", b"Bearer")])
            return
        await self._page(scope, headers, receive, send)

    async def _page(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        limits = self._limits
        try:
            data = await read_body(receive, headers, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        except Refusal as refusal:
            await send_refusal(send, refusal)
            return
        except Disconnected:
            return
        pages = await self._pages()
        await pages(scope, _replay(data, receive), send)

    async def _pages(self) -> App:
        if self._making_pages is None:
            self._making_pages = asyncio.ensure_future(asyncio.to_thread(self._make_pages, self))
        return await asyncio.shield(self._making_pages)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        making = asyncio.ensure_future(self._pages())
        watching = asyncio.ensure_future(self._watch_controller())
        await receive()
        watching.cancel()
        await making
        await asyncio.to_thread(self.prediction_log.close)
        await asyncio.to_thread(self.versions.close)
        self._answering.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch_controller(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if self.versions.is_dead_man_due():
                try:
                    await asyncio.to_thread(self.versions.obey_dead_man)
                except OSError:  # a full disk must not end the watch: it is tried again at the next look
                    log.exception("traffic could not be given back, it is tried again")


def _answer(scores: list[float], digest: str) -> bytes:
    return msgspec.json.encode({"predictions": scores, "model_digest": digest})


def _replay(data: bytes, receive: Receive) -> Receive:
    """The body that was already read, then the connection itself."""
    is_sent = False

    async def again() -> dict[str, object]:
        nonlocal is_sent
        if is_sent:
            return dict(await receive())
        is_sent = True
        return {"type": "http.request", "body": data, "more_body": False}

    return again
