"""The few pieces of HTTP the hot path needs: read a bounded body, send one answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from clearway.serve.refusal import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_BODY_BYTES = 1 << 20  # 1,000 rows of 40 columns with 25 bytes each
BODY_TIMEOUT_S = 10.0  # a body that takes longer is a slow client holding a slot
JSON_TYPE = (b"content-type", b"application/json")
SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
PAGE_POLICY = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
# The rest of a refused body is not worth reading; the connection ends with the answer.
_STATUS_THAT_CLOSES = frozenset((408, 413, 503))


class Disconnected(Exception):
    """The client went away before its request was whole; nobody waits for an answer."""


async def read_body(receive: Receive, headers: dict[bytes, bytes], *, max_bytes: int, timeout_s: float) -> bytes:
    """All bytes of a request. Raises: Refusal 413 (declared or streamed), 408; Disconnected."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    if _has_arrived(receive):  # nearly always: no wait, so no timer either (a third of this app's own time)
        return _part(await receive(), max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(receive, max_bytes)
    except TimeoutError as error:
        raise Refusal(408, "body_timeout", f"the body took longer than {timeout_s:g} s; send it faster") from error


def _has_arrived(receive: Receive) -> bool:
    """Whether uvicorn holds the whole body already; any other server is taken not to say."""
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False


async def _collect(receive: Receive, max_bytes: int) -> bytes:
    parts, size, has_more = [], 0, True
    while has_more:
        message = await receive()
        parts.append(_part(message, max_bytes))
        size += len(parts[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _part(message: Message, max_bytes: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise Disconnected
    part: bytes = message.get("body", b"")
    if len(part) > max_bytes:
        raise _too_large(max_bytes)
    return part


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than {max_bytes} bytes; split the request")


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers, *, is_head: bool = False) -> None:
    """One whole answer; HEAD gets the headers of what GET would send."""
    all_headers = [*headers, *SECURITY_HEADERS, (b"content-length", str(len(body)).encode())]
    if status in _STATUS_THAT_CLOSES:
        all_headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def send_refusal(send: Send, refusal: Refusal, headers: Headers | None = None) -> None:
    """The one form of every error outside the V2 routes: {"error": {"code": …, "message": …}}."""
    body = msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}})
    await send_bytes(send, refusal.status, body, [JSON_TYPE, *(headers or [])])


def with_headers(send: Send, extra: Headers) -> Send:
    """`send` that adds headers to the answer of another app."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return sent
