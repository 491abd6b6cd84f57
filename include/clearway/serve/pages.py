"""Admin calls and documentation, on FastAPI: rare, so comfort counts more than microseconds.

The plain app has read the body and checked the token before anything here runs.
"""

from typing import Annotated, Any

import fastapi
import pydantic
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ClearwayError, IntegrityError, StaleWriter, Unavailable
from clearway.infra.endpoint import DeadMan, Mirror
from clearway.serve.answering import score_rows
from clearway.serve.app import ModelServer
from clearway.serve.decode import decode
from clearway.serve.openapi import describe, render_page
from clearway.serve.refusal import MAX_MESSAGE, Refusal, shown
from clearway.serve.versions import Version

Digest = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
# Epochs rise by one per lease taken; beyond 2**53 a JSON number is no exact integer for every client.
Epoch = Annotated[int, pydantic.Field(ge=0, lt=2**53)]
Weight = Annotated[float, pydantic.Field(ge=0, le=100, allow_inf_nan=False)]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class LoadVersion(_Part):
    """A package to load beside the others."""

    uri: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9]+://", max_length=1024)]
    digest: Digest
    epoch: Epoch


class DeadManTimer(_Part):
    """Who takes all traffic when the controller is silent for that long."""

    stable: Digest
    after_s: Annotated[float, pydantic.Field(gt=0, le=86_400, allow_inf_nan=False)]


class MirrorTo(_Part):
    """Who is given copies of requests, and the columns whose values name slices."""

    digest: Digest
    columns: Annotated[list[Annotated[str, pydantic.Field(max_length=200)]], pydantic.Field(max_length=16)] = []


class SetTraffic(_Part):
    """A whole traffic table: digest → percent, sum 100; empty takes all traffic away."""

    weights_pct: Annotated[dict[Digest, Weight], pydantic.Field(max_length=16)]
    epoch: Epoch
    dead_man: DeadManTimer | None = None
    mirror: MirrorTo | None = None


class ReadMirrored(_Part):
    """Mirrored rows from this number on; the reader's epoch."""

    first: Annotated[int, pydantic.Field(ge=0, lt=2**53)]
    epoch: Epoch


class Heard(_Part):
    """A controller watches; its epoch."""

    epoch: Epoch


class State(_Part):
    """What this server says of itself."""

    weights_pct: dict[str, float]
    loaded: list[str]
    epoch: int
    mirror: str | None
    dead_man: str | None
    broken: dict[str, str]


class Done(_Part):
    """The call took effect."""

    is_done: bool = True


def make_pages(server: ModelServer) -> fastapi.FastAPI:
    """The FastAPI app of one server."""
    app = fastapi.FastAPI(
        title="Clearway model server",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would name whatever host the caller claims to have called
    )
    _add_errors(app)
    _add_versions(app, server)
    _add_service(app, server)

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(describe(app, server.versions.serving))

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(render_page(describe(app, server.versions.serving)))

    return app


def _add_versions(app: fastapi.FastAPI, server: ModelServer) -> None:
    versions = server.versions

    @app.post("/admin/versions", tags=["admin"])
    def load(body: LoadVersion) -> Done:
        """Copy, verify and warm up a version; loading it again changes nothing."""
        versions.load(body.uri, body.digest, epoch=body.epoch)
        return Done()

    @app.delete("/admin/versions/{digest}", tags=["admin"])
    def unload(digest: Digest, epoch: Epoch) -> Done:
        """Drop a version that takes no traffic."""
        versions.unload(digest, epoch=epoch)
        return Done()

    @app.get("/admin/versions/{digest}/examples", tags=["admin"])
    def examples(digest: Digest) -> dict[str, Any]:
        """The golden rows of a loaded version, as a body for /invocations."""
        return {"instances": _loaded(server, digest).package.golden["rows"]}

    @app.put("/admin/traffic", tags=["admin"])
    def set_traffic(body: SetTraffic) -> Done:
        """Replace the traffic table atomically; the next request is answered by it."""
        timer = body.dead_man
        dead_man = DeadMan(stable=timer.stable, after_s=timer.after_s) if timer else None
        mirror = Mirror(digest=body.mirror.digest, columns=tuple(body.mirror.columns)) if body.mirror else None
        versions.set_weights(body.weights_pct, epoch=body.epoch, dead_man=dead_man, mirror=mirror)
        return Done()

    @app.post("/admin/observe", tags=["admin"])
    async def observe(body: Heard) -> dict[str, Any]:
        """What every version did for callers; also tells the dead-man timer that the controller lives."""
        await fastapi.concurrency.run_in_threadpool(versions.hear, epoch=body.epoch)
        return dict(to_jsonable(server.observed()))  # on the event loop, where counting happens

    @app.post("/admin/mirrored", tags=["admin"])
    async def mirrored(body: ReadMirrored) -> dict[str, Any]:
        """Rows that both versions were given; also tells the dead-man timer that the controller lives."""
        await fastapi.concurrency.run_in_threadpool(versions.hear, epoch=body.epoch)
        return dict(to_jsonable(server.mirrored(first=body.first)))

    @app.get("/admin/state", tags=["admin"])
    def state() -> State:
        """Loaded versions, traffic table, newest epoch seen, who is given copies, who was taken out of service."""
        serving = versions.serving
        return State(
            weights_pct=serving.traffic.weights_pct,
            loaded=sorted(serving.loaded),
            epoch=serving.epoch,
            mirror=serving.mirror.digest if serving.mirror else None,
            dead_man=serving.dead_man.stable if serving.dead_man else None,
            broken=dict(serving.broken),
        )


def _add_service(app: fastapi.FastAPI, server: ModelServer) -> None:
    @app.post("/admin/score", tags=["admin"])
    async def score(request: fastapi.Request, digest: Digest) -> dict[str, Any]:
        """Score with one loaded version, whoever takes traffic; never logged."""
        version = _loaded(server, digest)
        body = decode(await request.body())
        scores = await fastapi.concurrency.run_in_threadpool(score_rows, version, body.rows)
        return {"predictions": scores, "model_digest": digest}

    @app.post("/admin/flush", tags=["admin"])
    def flush() -> Done:
        """Return once every row logged so far can be read from storage."""
        server.prediction_log.flush()
        return Done()


def _loaded(server: ModelServer, digest: str) -> Version:
    version = server.versions.serving.loaded.get(digest)
    if version is None:
        raise Refusal(404, "not_loaded", f"version {digest} is not loaded; load it first")
    return version


def _add_errors(app: fastapi.FastAPI) -> None:
    """Every error in one form; none repeats what the caller sent beyond a bounded, printable name."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(shown(part) if isinstance(part, str) else str(part) for part in first["loc"])
        return _answer(422, "bad_request", f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(_: fastapi.Request, error: HTTPException) -> JSONResponse:
        return _answer(error.status_code, "refused", str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Refusal)
    async def known(_: fastapi.Request, error: Refusal) -> JSONResponse:
        return _answer(error.status, error.code, error.message)

    @app.exception_handler(ClearwayError)
    async def domain(_: fastapi.Request, error: ClearwayError) -> JSONResponse:
        if isinstance(error, StaleWriter):
            return _answer(409, "stale_epoch", str(error))
        if isinstance(error, IntegrityError):
            return _answer(422, "integrity", str(error))
        return _answer(503 if isinstance(error, Unavailable) else 422, "refused", str(error))

    @app.exception_handler(OSError)
    async def storage(_: fastapi.Request, error: OSError) -> JSONResponse:
        return _answer(503, "storage", f"storage or disk does not answer: {error}")


def _answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"error": {"code": code, "message": message[:MAX_MESSAGE]}}
    return JSONResponse(body, status_code=status, headers=headers)
