"""Conversations with the server's own HTTP over real sockets, without its process."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import uvicorn.server

from clearway.serve import protocol
from clearway.serve.process import _config
from serving_kit import ROW

PLAIN = ((b"content-type", b"application/json"), (b"x-request-id", b"me-1"))
ONE = json.dumps({"instances": [ROW]}).encode()


def message(
    body: bytes = ONE,
    headers: Sequence[tuple[bytes, bytes]] = PLAIN,
    *,
    target: bytes = b"POST /invocations HTTP/1.1",
    length: bool = True,
) -> bytes:
    """A request as it goes over the wire; `length`: whether it says how long its body is."""
    lines = [target, b"host: x", *(b"%s: %s" % pair for pair in headers)]
    return b"\r\n".join([*lines, *([b"content-length: %d" % len(body)] if length else []), b"", body])


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[tuple[int, uvicorn.server.ServerState]]:
    """The server's own HTTP without its process: a port, and the open connections."""
    config, state = _config(app), uvicorn.server.ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    made = await loop.create_server(
        lambda: protocol.ServingProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with made:
        yield made.sockets[0].getsockname()[1], state


async def answer_on(reader: asyncio.StreamReader) -> bytes:
    """The next whole answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(int(length.split(b":")[1]))


async def exchange(port: int, *pieces: bytes, num_answers: int = 1) -> list[bytes]:
    """The pieces one after the other on a new connection, and what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that they arrive apart
        return [await answer_on(reader) for _ in range(num_answers)]
    finally:
        writer.close()


def run(app: Any, *conversations: Sequence[bytes], num_answers: int = 1) -> list[list[bytes]]:
    """Every conversation on its own connection, all at once."""

    async def together() -> list[list[bytes]]:
        async with listening(app) as (port, _):
            asked = (exchange(port, *pieces, num_answers=num_answers) for pieces in conversations)
            return await asyncio.wait_for(asyncio.gather(*asked), 30)

    return asyncio.run(together())


def status_of(answer: bytes) -> int:
    """Of a raw answer."""
    return int(answer.split(b" ", 2)[1])
