"""The server process: assemble, bind, serve, drain."""

import asyncio
import contextlib
import fcntl
import gc
import json
import logging
import random
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.serve.app import Limits, ModelServer
from clearway.serve.children import Nursery
from clearway.serve.http import App
from clearway.serve.local_copy import LocalCopy, ensure_token
from clearway.serve.prediction_log import PredictionLog
from clearway.serve.protocol import KEEP_ALIVE_S, ServingProtocol
from clearway.serve.versions import Versions

log = logging.getLogger("clearway.serve")

DRAIN_S = 10  # requests under way on SIGTERM may take this long; longer ones are cut
MAX_CONNECTIONS = 1024
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class _Server(uvicorn.Server):
    """Stops on SIGTERM or SIGINT and then ends normally; the base class ends by killing itself with the same signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def serve(env: Environment, *, product: str, host: str, port: int) -> None:
    """Serve until SIGTERM. Raises: ConfigError (product already served here, port taken, token readable by others)."""
    folder, admin_port = env.home / "serving" / product, env.serving.admin_port
    if not any((env.home / "keys").glob("*.pub")):  # whoever may not read the key gives this machine its public half
        trust_account_key(env)
    with _only_one(folder), bound_socket(host, port) as bound, contextlib.ExitStack() as more:
        sockets = [bound, *([more.enter_context(bound_socket("127.0.0.1", admin_port))] if admin_port else [])]
        server = make_server(env, product=product)
        app = guarded(server, env)
        server.versions.restore()
        serving = server.versions.serving
        extra = {"url": f"http://{host}:{port}", "product": product, "weights_pct": serving.traffic.weights_pct}
        log.info("model server is ready", extra=extra)
        run_until_stopped(app, sockets)
    log.info("model server has drained", extra={"product": product})


def trust_account_key(env: Environment) -> None:
    """Trust packages that were signed with the account's key, if it has one."""
    if env.aws.signing_secret:
        from clearway.infra.aws.secrets import binary_secret  # noqa: PLC0415 - imports the client of AWS
        from clearway.packaging.signing import install  # noqa: PLC0415

        install(binary_secret(env.aws.signing_secret), key_folder=env.home / "keys")


def run_until_stopped(app: App, sockets: list[socket.socket]) -> None:
    """Answer until SIGTERM, then drain."""
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked at by every collection
    _Server(_config(app)).run(sockets=sockets)


def make_server(env: Environment, *, product: str, limits: Limits | None = None, isolates: bool = True) -> ModelServer:
    """The ASGI app with its parts, nothing loaded yet. `isolates`: candidates live in processes of their own."""
    storage, layout, clock = open_storage(env.store_root), Layout(env.store_root, product), SystemClock()
    folder, key_folder = env.home / "serving" / product, env.home / "keys"
    nursery = Nursery(folder, key_folder) if isolates else None
    return ModelServer(
        versions=Versions(LocalCopy(folder, key_folder=key_folder), nursery=nursery),
        prediction_log=PredictionLog(storage, layout, clock=clock),
        clock=clock,
        model=product,
        token=ensure_token(env.admin_token_file),
        make_pages=_make_pages,
        limits=limits or Limits(slow_s=env.serving.slow_s),
        random_source=random.Random(),  # noqa: S311 - splits traffic, guards nothing
    )


def guarded(server: ModelServer, env: Environment) -> App:
    """The app behind the gate that settings ask for, if any. Raises: ConfigError for keys that cannot be used."""
    settings = env.serving
    wants_tokens = "jwt" in {settings.callers, settings.admins}
    if not (wants_tokens or settings.admin_port or settings.rate_per_s or settings.origins):
        return server
    from clearway.serve.gate import Budgets, Gate, Rules  # noqa: PLC0415 - only where asked for
    from clearway.serve.tokens import Verifier, read_keys  # noqa: PLC0415 - as above

    keys = read_keys(Path(settings.keys) if settings.keys else env.home / "serving" / "jwt") if wants_tokens else ()

    def verifier(audience: str, *, is_single_use: bool) -> Verifier:
        return Verifier(keys=keys, issuer=settings.issuer, audience=audience, is_single_use=is_single_use)

    rules = Rules(
        callers=verifier(settings.caller_audience, is_single_use=False) if settings.callers == "jwt" else None,
        admins=verifier(settings.admin_audience, is_single_use=True) if settings.admins == "jwt" else None,
        admin_token=ensure_token(env.admin_token_file),
        admin_port=settings.admin_port,
        budgets=Budgets(rate_per_s=settings.rate_per_s, burst=settings.burst) if settings.rate_per_s else None,
        origins=frozenset(settings.origins.encode().split()),
    )
    return Gate(server, rules)


def _make_pages(server: ModelServer) -> App:
    from clearway.serve.pages import make_pages  # noqa: PLC0415 - FastAPI costs more than the rest of the start

    return make_pages(server)


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=ServingProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the product's state folder; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another model server already uses {folder}; stop it, or set another home") from error
        yield


@contextlib.contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Raises: Unavailable if the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"address {host}:{port} cannot be bound: {error.strerror}; choose another --port"
            ) from error
        yield bound


class JsonFormatter(logging.Formatter):
    """One JSON object per line; control characters of foreign text are escaped by JSON itself."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
