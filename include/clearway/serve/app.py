"""The model server as a plain ASGI app: its own dispatch on the hot path, FastAPI for documentation and admin calls."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from clearway.contracts.observed import Mirrored, Observed
from clearway.infra.clock import Clock
from clearway.serve import v2
from clearway.serve.answering import Answering, SharedRefusal
from clearway.serve.at_once import AtOnce
from clearway.serve.counters import GONE, LATENCY_BOUNDS_S, Counters
from clearway.serve.decode import Request, decode
from clearway.serve.feature_counts import FeatureCounts
from clearway.serve.formats import AS_JSON, Answer, answer_of, reader_of, typed
from clearway.serve.http import (
    BODY_TIMEOUT_S,
    JSON_TYPE,
    MAX_BODY_BYTES,
    PAGE_POLICY,
    SECURITY_HEADERS,
    App,
    Disconnected,
    Headers,
    Receive,
    Scope,
    Send,
    read_body,
    send_bytes,
    send_refusal,
    with_headers,
)
from clearway.serve.local_copy import is_token
from clearway.serve.mirror import Mirroring
from clearway.serve.outcomes import Outcomes, read_outcomes
from clearway.serve.prediction_log import Entry, PredictionLog
from clearway.serve.refusal import MAX_SHOWN, Refusal
from clearway.serve.trace import trace_id, traced
from clearway.serve.traffic import ALL_PCT, sticky_point
from clearway.serve.versions import Serving, Version, Versions

log = logging.getLogger("clearway.serve")

MAX_REQUEST_ID = 64  # characters of a caller's own x-request-id
OVERLOADED, CRASHED = 503, 500
WATCH_S = 0.5  # seconds between two looks at the dead-man timer, which is set in seconds
MAX_IN_FLIGHT = 256  # requests beyond this wait longer than a caller would; they are told to come back
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_METHODS = {
    "/invocations": ("POST",),
    "/outcomes": ("POST",),
    "/v2": ("GET", "HEAD"),
    "/v2/health/live": ("GET", "HEAD"),
    "/v2/health/ready": ("GET", "HEAD"),
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
    slow_s: float = 1.0  # an answer that took longer is reported in the log


class ModelServer:
    """ASGI app of one product.

    Args:
        model: its name in the routes of the Open Inference Protocol.
        token: bearer token of /admin/*.
        make_pages: builds the FastAPI app for /docs, /openapi.json and /admin/*; called in a thread once the server
            answers, because its import costs as much as the rest of the start.
        random_source: chooses a version for callers without a sticky key.
        steady_s: seconds of a clock that never goes back; answers are timed by it.
    """

    def __init__(
        self,
        *,
        versions: Versions,
        prediction_log: PredictionLog,
        clock: Clock,
        model: str,
        token: str,
        make_pages: "Callable[[ModelServer], App]",
        limits: Limits,
        random_source: random.Random,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.versions, self.prediction_log, self.counters = versions, prediction_log, Counters()
        self._clock, self._token, self.limits, self.random_source = clock, token, limits, random_source
        self._make_pages, self.steady_s = make_pages, steady_s
        self._outcomes, self.feature_counts = Outcomes(self.counters), FeatureCounts()
        self._model_path, self._model = f"/v2/models/{model}", model
        self._ready_paths = frozenset(("/ping", "/v2/health/ready", f"{self._model_path}/ready"))
        self._methods = _METHODS | {
            self._model_path: ("GET", "HEAD"),
            f"{self._model_path}/ready": ("GET", "HEAD"),
            f"{self._model_path}/infer": ("POST",),
        }
        self._making_pages: asyncio.Future[App] | None = None
        self._answering = Answering()
        self.at_once = AtOnce(self, self._answering.ask_soon)
        self._decoding = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decode")
        self.num_in_flight = 0
        self._id_prefix, self._id_count = uuid.uuid4().hex[:12], 0
        self.mirroring = Mirroring(process_id=self._id_prefix, ask=self._answering.ask_unheard)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if path == "/invocations" and method == "POST":
                await self._invocations(scope, receive, send)
            elif method == "POST" and path == f"{self._model_path}/infer":
                await self._invocations(scope, receive, send, is_v2=True)
            elif method == "POST" and path == "/outcomes":
                await self._count_outcomes(scope, receive, send)
            elif path in self._methods:
                await self._plain(path, method, send)
            else:
                await self._other(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._lifespan(receive, send)

    async def answer_in_full(self, version: Version, scope: Scope, receive: Receive, send: Send) -> None:
        """A POST /invocations that was given its version already."""
        await self._invocations(scope, receive, send, given=version)

    async def _invocations(
        self, scope: Scope, receive: Receive, send: Send, *, is_v2: bool = False, given: Version | None = None
    ) -> None:
        began = self.steady_s()
        headers = dict(scope["headers"])
        is_probe = b"x-clearway-probe" in headers
        status, digest, chosen, scores = CRASHED, "", "", list[float]()  # until an answer went out
        is_callers_fault = False
        trace = traced(headers[b"traceparent"]) if b"traceparent" in headers else b""
        self.num_in_flight += 1
        try:
            if self.num_in_flight > self.limits.max_in_flight:
                raise Refusal(503, "overloaded", "the server is at its limit of requests; retry after a second")
            request, answer = await self._read(headers, receive, is_v2=is_v2)
            serving = self.versions.serving
            version = given or self.choose(serving, headers)
            digest = chosen = version.digest
            if request.is_text:
                request = typed(request, version.package.encoder)
            if digest == serving.stable:
                scores = await self._answering.score(version, request.rows)
            else:
                scores, digest = await self._answering.score_safely(serving, version, request.rows)
            request_id = self.request_id(headers, trace)
            if not is_probe:
                self.keep(request_id, request, scores, digest, serving.epoch)
            await send_bytes(send, 200, answer.write(scores, digest), _headers(answer, request_id, digest, trace))
            status = 200
            if not is_probe:
                answered = version if digest == chosen else serving.loaded[digest]
                self.feature_counts.offer(answered.package, request.rows)
            if serving.mirror is not None and not is_probe:
                self._offer_copy(serving, request, scores, digest, chosen)
        except Refusal as refusal:
            status, scores = refusal.status, []
            is_callers_fault = refusal.code == "bad_value" or isinstance(refusal, SharedRefusal)
            await _refuse(send, refusal, trace, is_v2=is_v2)
        except Disconnected:
            status, scores = GONE, []
        finally:
            self.num_in_flight -= 1
            took_s = self.steady_s() - began
            self.counters.count(
                status,
                digest,
                duration_s=took_s,
                is_probe=is_probe,
                scores=scores,
                instead_of=chosen if chosen != digest else "",
                is_callers_fault=is_callers_fault,
            )
            self.report_if_slow(took_s, status, digest, trace)

    def report_if_slow(self, took_s: float, status: int, digest: str, trace: bytes) -> None:
        """A line in the log for an answer that took long."""
        if took_s > self.limits.slow_s:
            extra = {"status": status, "seconds": round(took_s, 3), "model_digest": digest}
            log.info("slow answer", extra=extra | {"trace_id": trace_id(trace)})

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, *, is_v2: bool) -> tuple[Request, Answer]:
        limits = self.limits
        if is_v2:
            read = v2.reader_of(headers, model=self._model)
            data = await read_body(receive, headers, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
            return await asyncio.get_running_loop().run_in_executor(self._decoding, read, data)
        answer = answer_of(headers[b"accept"]) if b"accept" in headers else AS_JSON
        decode_body = reader_of(headers)
        data = await read_body(receive, headers, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        if decode_body is decode:
            return decode(data), answer
        return await asyncio.get_running_loop().run_in_executor(self._decoding, decode_body, data), answer

    async def _count_outcomes(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits, headers = self.limits, dict(scope["headers"])
        try:
            if reader_of(headers) is not decode:
                raise Refusal(415, "bad_content_type", "the content type is not taken; allowed: application/json")
            data = await read_body(receive, headers, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
            found = await asyncio.get_running_loop().run_in_executor(self._decoding, read_outcomes, data)
            num_new = self._outcomes.count(found, loaded=self.versions.serving.loaded)
        except Refusal as refusal:
            await send_refusal(send, refusal)
        except Disconnected:
            return
        else:
            body = msgspec.json.encode({"num_counted": num_new, "num_repeated": len(found) - num_new})
            await send_bytes(send, 200, body, [JSON_TYPE])

    def choose(self, serving: Serving, headers: dict[bytes, bytes]) -> Version:
        """By the traffic table: sticky with a key, at random without. Raises: Refusal 503."""
        traffic = serving.traffic
        if traffic.only is not None:
            return serving.loaded[traffic.only]
        if traffic.is_empty:
            raise Refusal(503, "no_model", "no model takes traffic yet; release one, or run the reconciler")
        key = headers.get(b"x-clearway-sticky-key")
        point = self.random_source.random() * ALL_PCT if key is None else sticky_point(key)
        return serving.loaded[traffic.choose(point)]

    def _offer_copy(self, serving: Serving, request: Request, scores: list[float], digest: str, chosen: str) -> None:
        candidate = serving.loaded.get(serving.mirror.digest) if serving.mirror else None
        if candidate is not None and serving.mirror is not None and digest == chosen == serving.stable:
            self.mirroring.offer(serving.mirror, candidate, digest, request.rows, scores)

    def request_id(self, headers: dict[bytes, bytes], trace: bytes) -> str:
        """The caller's own if it is sane, else the trace's, else a new one."""
        given = headers.get(b"x-request-id", b"")
        if given and len(given) <= MAX_REQUEST_ID and given.replace(b"-", b"").isalnum():
            return given.decode("ascii")
        if trace:
            return trace_id(trace)  # so that the prediction log can be joined with the caller's traces
        self._id_count += 1
        return f"{self._id_prefix}-{self._id_count}"

    def keep(self, request_id: str, request: Request, scores: list[float], digest: str, epoch: int) -> None:
        """Hand an answer to the prediction log."""
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

    async def _plain(self, path: str, method: str, send: Send) -> None:
        if method not in self._methods[path]:
            allow = ", ".join(self._methods[path])
            refusal = Refusal(405, "method_not_allowed", f"{path} does not take that method; allowed: {allow}")
            await send_refusal(send, refusal, [(b"allow", allow.encode())])
            return
        status, body, kind = 200, b"{}", JSON_TYPE
        if path == "/metrics":
            body, kind = self._metrics(), _TEXT
        elif path == "/v2":
            body = v2.describe_server()
        elif path == self._model_path:
            try:
                body = v2.describe_model(self._model, self.versions.serving)
            except Refusal as refusal:
                status, body = refusal.status, v2.refusal_body(refusal)
        elif path in self._ready_paths and self.versions.serving.traffic.is_empty:
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
            "in_flight_requests": self.num_in_flight,
            "prediction_log_pending_rows": rows.num_pending,
        }
        totals = {
            "prediction_log_written_rows_total": rows.num_written,
            "prediction_log_lost_rows_total": rows.num_lost,
            "mirrored_rows_total": self.mirroring.num_rows,
            "mirror_dropped_requests_total": self.mirroring.num_dropped,
        }
        counted = self.counters.render(gauges=gauges, totals=totals, weights=weights)
        return counted + self.feature_counts.render(serving.loaded)

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
        if is_admin and (asked := headers.get(b"x-clearway-product", self._model.encode())) != self._model.encode():
            await send_refusal(send, self._misdirected(asked.decode("latin-1")))
            return
        await self._page(scope, headers, receive, send)

    def _misdirected(self, asked: str) -> Refusal:
        """To whoever takes this server for another product's, whose traffic would move here."""
        text = (
            f"this server serves {self._model}, and {asked[:MAX_SHOWN]} was meant; start one for it (`make run`, or "
            "clearway.serve, with its name), or say where it is: CLEARWAY__ENDPOINT__URLS__<PRODUCT>"
        )
        return Refusal(421, "other_product", text)

    async def _page(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        limits = self.limits
        try:
            data = await read_body(receive, headers, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        except Refusal as refusal:
            await send_refusal(send, refusal)
            return
        except Disconnected:
            return
        pages = await self._pages()
        extra = [*SECURITY_HEADERS, *([PAGE_POLICY] if scope["path"] == "/docs" else [])]
        await pages(scope, _replay(data, receive), with_headers(send, extra))

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
        self._decoding.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch_controller(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if self.versions.is_dead_man_due():
                try:
                    await asyncio.to_thread(self.versions.obey_dead_man)
                except OSError:  # a full disk must not end the watch: it is tried again at the next look
                    log.exception("traffic could not be given back, it is tried again")


def _headers(answer: Answer, request_id: str, digest: str, trace: bytes) -> Headers:
    kind, named = (b"content-type", answer.content_type), (b"x-request-id", request_id.encode())
    headers = [kind, (b"x-clearway-model-digest", digest.encode()), named]
    return [*headers, (b"traceparent", trace)] if trace else headers


async def _refuse(send: Send, refusal: Refusal, trace: bytes, *, is_v2: bool) -> None:
    headers = [(b"retry-after", b"1")] if refusal.status == OVERLOADED else []
    if trace:
        headers.append((b"traceparent", trace))
    if log.isEnabledFor(logging.DEBUG):
        log.debug("refused", extra={"status": refusal.status, "code": refusal.code, "trace_id": trace_id(trace)})
    if is_v2:
        await send_bytes(send, refusal.status, v2.refusal_body(refusal), [JSON_TYPE, *headers])
    else:
        await send_refusal(send, refusal, headers)


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
