"""A version whose answers nobody hears, in a container of its own: SageMaker gives it copies of callers' requests.

Its answers are read from what SageMaker captures, beside those that callers got. So every copy is answered with 200,
also one for which this version has no scores: what is not answered may be captured nowhere. Nothing of it is logged.

{"model_digest": …, "predictions": […], "slices": [["carrier=AA"], …]}   scored; slices per row
{"model_digest": …, "failed": 422, "slices": …}                           no scores for these rows
{"model_digest": …, "failed": 503}                                        not tried, too much was under way
"""

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from clearway.serve.formats import reader_of, typed
from clearway.serve.http import JSON_TYPE, Disconnected, Headers, Message, Receive, Scope, Send, read_body, send_bytes
from clearway.serve.refusal import Refusal

if TYPE_CHECKING:
    from clearway.serve.app import ModelServer

log = logging.getLogger("clearway.serve")

UNLOGGED = (b"x-clearway-probe", b"1")
_OK, _CRASHED = 200, 500


class Copied:
    """The ASGI app behind POST /invocations. Args: columns: whose values name the slices of a row."""

    def __init__(self, server: "ModelServer", *, columns: tuple[str, ...]) -> None:
        self._server, self._columns = server, columns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"accept"]  # always JSON
        limits = self._server.limits
        try:
            data = await read_body(
                receive, dict(headers), max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s
            )
        except Disconnected:
            return
        except Refusal as refusal:
            await self._say(send, {"failed": refusal.status})
            return
        status, body = await self._asked({**scope, "headers": [*headers, UNLOGGED]}, data)
        said: dict[str, Any] = msgspec.json.decode(body) if status == _OK else {"failed": status}
        await self._say(send, said | self._slices(headers, data))

    async def _asked(self, scope: Scope, data: bytes) -> tuple[int, bytes]:
        """Status and body, as a caller would get them."""
        messages: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await self._server(scope, receive, send)
        except Exception:
            log.exception("a copy of a request failed")  # an answer like others: it says that there are no scores
            return _CRASHED, b""
        return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent[1:])

    def _slices(self, headers: Headers, data: bytes) -> dict[str, Any]:
        try:
            request = reader_of(dict(headers))(data)
            if request.is_text:
                (version,) = self._server.versions.serving.loaded.values()
                request = typed(request, version.package.encoder)
        except Refusal:
            return {}
        return {"slices": [[f"{name}={row.get(name)}" for name in self._columns] for row in request.rows]}

    async def _say(self, send: Send, said: dict[str, Any]) -> None:
        (digest,) = self._server.versions.serving.loaded
        await send_bytes(send, _OK, msgspec.json.encode({"model_digest": digest} | said), [JSON_TYPE])
