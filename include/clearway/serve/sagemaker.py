"""`python -m clearway.serve.sagemaker`: what a SageMaker container of ours runs, the model server with one version.

SageMaker asks GET /ping and POST /invocations on port 8080, and hands on nothing but a body and its custom attributes.
So what the local server's admin calls do is asked by those:

clearway=probe      an answer like any caller's, counted apart and never logged, which says `is_probe`
clearway=examples   rows that the version certainly takes
clearway=logged     an answer that goes out once its rows are in the store

A transform job starts the same; its requests carry no attributes, and with `sagemaker.is_offline` none is logged. With
`sagemaker.is_shadow` it is given copies of callers' requests (`copied.py`).
"""

import argparse
import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import msgspec

from clearway.contracts.errors import ClearwayError, ConfigError
from clearway.infra.environment import Environment
from clearway.serve.copied import UNLOGGED, Copied
from clearway.serve.http import JSON_TYPE, App, Message, Receive, Scope, Send, send_bytes
from clearway.serve.process import (
    JsonFormatter,
    bound_socket,
    make_server,
    run_until_stopped,
    trust_account_key,
)

if TYPE_CHECKING:
    from clearway.serve.app import ModelServer

ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_EPOCH = 1  # of a server whose only version never changes


class Container:
    """The ASGI app: the model server behind SageMaker's contract. Args: copied: answers copies of callers' requests."""

    def __init__(self, server: "ModelServer", *, is_offline: bool = False, copied: App | None = None) -> None:
        self.server, self._is_offline, self._copied = server, is_offline, copied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = b""
        if scope["type"] == "http" and scope["path"] == "/invocations":
            asked = dict(scope["headers"]).get(ATTRIBUTES, b"")
        elif scope["type"] == "http" and scope["path"] != "/ping":
            await send_bytes(send, 404, b'{"error":{"code":"not_found","message":"no such path"}}', [JSON_TYPE])
            return
        if asked == b"clearway=examples":
            (version,) = self.server.versions.serving.loaded.values()
            rows = {"instances": version.package.golden["rows"]}
            await send_bytes(send, 200, msgspec.json.encode(rows), [JSON_TYPE])
        elif asked == b"clearway=probe":
            await self.server(_unlogged(scope), receive, _marked(send))
        elif self._copied is not None and scope["type"] == "http" and scope["path"] == "/invocations":
            await self._copied(scope, receive, send)
        elif self._is_offline and scope["type"] == "http":
            await self.server(_unlogged(scope), receive, send)
        elif asked == b"clearway=logged":
            await self.server(scope, receive, self._after_flush(send))
        else:
            await self.server(scope, receive, send)

    def _after_flush(self, send: Send) -> Send:
        async def flushed(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.to_thread(self.server.prediction_log.flush)
            await send(message)

        return flushed


def _unlogged(scope: Scope) -> Scope:
    return {**scope, "headers": [*scope["headers"], UNLOGGED]}


def _marked(send: Send) -> Send:
    """Answers that say they are probes, so that whoever reads captured answers can leave them out."""
    held: list[Message] = []

    async def marking(message: Message) -> None:
        if message["type"] == "http.response.start":
            held.append(message)
            return
        start, body = held.pop(), message.get("body", b"")
        if start["status"] == 200 and body.endswith(b"}"):  # noqa: PLR2004
            body = body[:-1] + b',"is_probe":true}'
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({**start, "headers": headers})
        await send({**message, "body": body})

    return marking


def make_container(env: Environment) -> Container:
    """With the version that the settings name, loaded and warm.

    Raises: ConfigError, IntegrityError if the package does not verify; Unavailable.
    """
    uri, digest = env.sagemaker.model_uri, env.sagemaker.model_digest
    if not uri or not digest:
        raise ConfigError("sagemaker.model_uri and sagemaker.model_digest are empty; a deployment sets them")
    product = uri.rstrip("/").rsplit("/", 3)[-3]
    server = make_server(env, product=product, isolates=False)
    server.versions.restore()
    server.versions.load(uri, digest, epoch=_EPOCH)
    server.versions.set_weights({digest: 100.0}, epoch=_EPOCH)
    copied = Copied(server, columns=shadow_columns(env)) if env.sagemaker.is_shadow else None
    return Container(server, is_offline=env.sagemaker.is_offline, copied=copied)


def shadow_columns(env: Environment) -> tuple[str, ...]:
    """Columns whose values name slices. Raises: ConfigError for what is no JSON list of texts."""
    given = env.sagemaker.shadow_columns
    try:
        return msgspec.json.decode(given or "[]", type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise ConfigError(f"sagemaker.shadow_columns is {given[:80]!r}; allowed: a JSON list of texts") from error


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM, 2 if it cannot start, which SageMaker sees as a failed health check."""
    parser = argparse.ArgumentParser(prog="python -m clearway.serve.sagemaker", description="Serve one model.")
    parser.add_argument("word", nargs="?", choices=["serve"], help="what SageMaker says to a container; ignored")
    parser.add_argument("--host", default="0.0.0.0", help="address to bind")  # noqa: S104 - a container's own network
    parser.add_argument("--port", type=int, default=8080)
    chosen = parser.parse_args(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        env = Environment.load()
        trust_account_key(env)
        app = make_container(env)
        with bound_socket(chosen.host, chosen.port) as bound:
            run_until_stopped(app, [bound])
    except ClearwayError as error:
        logging.getLogger("clearway.serve").critical("container cannot start: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
