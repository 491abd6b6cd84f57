"""Client of Clearway's own model server."""

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from clearway.contracts.codec import from_jsonable
from clearway.contracts.errors import ClearwayError, ConfigError, IntegrityError, StaleWriter, Unavailable
from clearway.contracts.observed import Mirrored, Observed
from clearway.infra.endpoint import DeadMan, LoggedRows, Mirror, TrafficState

# Says whose server is meant: the server of another product refuses an admin call.
PRODUCT_HEADER = "x-clearway-product"
PROBE_HEADER = "x-clearway-probe"  # asks for an answer like any caller's that is counted apart and never logged
# A candidate that reads text may take 80 s to start (clearway.kinds.scorers); a lease of a release lasts two minutes.
LOAD_TIMEOUT_S = 100.0
DIGEST_HEADER = "x-clearway-model-digest"

# The server's error codes that mean something to a caller; any other refusal is a ConfigError, any 5xx Unavailable.
_ERRORS: dict[str, type[ClearwayError]] = {"stale_epoch": StaleWriter, "integrity": IntegrityError}
_OK = 200
_SERVER_ERROR = 500


class LocalEndpoint:
    """Speaks HTTP to one server process of one product; a connection per call, so it survives server restarts.

    Args:
        url: base URL, `http://host:port`.
        product: whose server it has to be.
        token_file: file with the admin bearer token, read at each admin call.
        timeout_s: longest wait for one answer.
    """

    def __init__(self, url: str, *, product: str, token_file: Path, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"endpoint url {url!r} is no base URL; allowed: http://host:port")
        self._url, self._parts, self._product = url, parts, product
        self._token_file, self._timeout_s = token_file, timeout_s

    def load(self, *, uri: str, digest: str, epoch: int) -> None:
        body = {"uri": uri, "digest": digest, "epoch": epoch}
        self._admin("POST", "/admin/versions", body, timeout_s=max(self._timeout_s, LOAD_TIMEOUT_S))

    def unload(self, digest: str, *, epoch: int) -> None:
        self._admin("DELETE", f"/admin/versions/{digest}?epoch={epoch}")

    def set_weights(
        self,
        weights_pct: dict[str, float],
        *,
        epoch: int,
        dead_man: DeadMan | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        body = {"weights_pct": weights_pct, "epoch": epoch}
        timer = {"dead_man": {"stable": dead_man.stable, "after_s": dead_man.after_s}} if dead_man else {}
        copies = {"mirror": {"digest": mirror.digest, "columns": mirror.columns}} if mirror else {}
        self._admin("PUT", "/admin/traffic", body | timer | copies)

    def observe(self, *, epoch: int) -> Observed:
        return from_jsonable(Observed, self._admin("POST", "/admin/observe", {"epoch": epoch}))

    def mirrored(self, *, first: int, epoch: int) -> Mirrored:
        return from_jsonable(Mirrored, self._admin("POST", "/admin/mirrored", {"first": first, "epoch": epoch}))

    def state(self) -> TrafficState:
        answer = self._admin("GET", "/admin/state")
        return TrafficState(
            weights_pct={str(d): float(w) for d, w in answer["weights_pct"].items()},
            loaded=tuple(answer["loaded"]),
            epoch=int(answer["epoch"]),
            mirror=answer["mirror"],
            dead_man=answer["dead_man"],
            broken={str(d): str(reason) for d, reason in answer["broken"].items()},
        )

    def predict(self, rows: list[dict[str, Any]], *, digest: str | None = None) -> tuple[list[float], str]:
        if digest is None:
            answer = self._call("POST", "/invocations", {"instances": rows}, {PROBE_HEADER: "1"})
        else:
            answer = self._admin("POST", f"/admin/score?digest={digest}", {"instances": rows})
        return list(answer["predictions"]), str(answer["model_digest"])

    def examples(self, digest: str) -> list[dict[str, Any]]:
        return list(self._admin("GET", f"/admin/versions/{digest}/examples")["instances"])

    def score_logged(self, batch: LoggedRows) -> tuple[list[float], str]:
        answer = self._call("POST", "/invocations", batch.body(), {})
        return list(answer["predictions"]), str(answer["model_digest"])

    def flush_log(self) -> None:
        self._admin("POST", "/admin/flush", {})

    def _admin(self, method: str, path: str, body: Any = None, *, timeout_s: float = 0.0) -> Any:
        """`timeout_s`: longest wait for this answer; 0: as for any."""
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except FileNotFoundError as error:
            raise Unavailable(
                f"admin token {self._token_file} does not exist; the model server makes it when it starts"
            ) from error
        headers = {"authorization": f"Bearer {token}", PRODUCT_HEADER: self._product}
        return self._call(method, path, body, headers, timeout_s=timeout_s)

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str], *, timeout_s: float = 0.0) -> Any:
        # NaN has no JSON form; the encoder writes null, which the server reads as missing, as training does.
        data = None if body is None else msgspec.json.encode(body)
        sent = {"content-type": "application/json", "connection": "close", **headers}
        try:
            status, answer = self._exchange(method, path, data, sent, timeout_s=timeout_s or self._timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"model server {self._url} does not answer: {error!r}; is it running?") from error
        if status == _OK:
            return msgspec.json.decode(answer)
        raise _refusal(status, answer, f"{method} {self._url}{path.partition('?')[0]}")

    def _exchange(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], *, timeout_s: float
    ) -> tuple[int, bytes]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=timeout_s)
        try:
            connection.request(method, path, body=data, headers=headers)
            with connection.getresponse() as response:  # holds the socket itself once the server said it will close
                return response.status, response.read()
        finally:
            connection.close()


def _refusal(status: int, answer: bytes, what: str) -> ClearwayError:
    try:
        error = msgspec.json.decode(answer)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        code, message = "", answer[:200].decode("utf-8", "replace")
    text = f"{what} answered {status}: {message}"
    if code in _ERRORS:
        return _ERRORS[code](text)
    return Unavailable(text) if status >= _SERVER_ERROR else ConfigError(text)
