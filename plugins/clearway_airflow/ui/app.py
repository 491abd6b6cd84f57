"""Routes of the pages. Each demands the right to read the DAG it speaks of; no address comes from the browser."""

from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.xcom import XComModel
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.status import HTTP_303_SEE_OTHER, HTTP_403_FORBIDDEN, HTTP_404_NOT_FOUND, HTTP_409_CONFLICT

from clearway.contracts.errors import ClearwayError, Unavailable
from clearway.contracts.rollout import Order, OrderKind
from clearway.deploy.orders import give_order
from clearway.infra.clock import SystemClock
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import join, open_storage
from clearway.product_yaml import find_product, list_products
from clearway_airflow.ui.pages import Standing, run_page, standings_page

PREFIX = "/clearway"
# A report is made from data, so it may carry scripts of others: in its own origin it can draw, but not act as the user.
REPORT_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "nosniff"}
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}
_TYPES = {".html": "text/html", ".json": "application/json"}
_ORDER = (
    "ingest",
    "preprocess",
    "validate",
    "tune",
    "train",
    "evaluate",
    "approve",
    "deploy",
    "serve",
    "monitor",
    "revert",
)

app = FastAPI(title="Clearway", docs_url=None, redoc_url=None, openapi_url=None)
MayRun = Annotated[None, Depends(requires_access_dag(method="POST", access_entity=DagAccessEntity.RUN))]
MayReadRuns = Annotated[None, Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))]


class OrderForm(BaseModel):
    """What the form of the rollout panel sends."""

    kind: OrderKind
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    release_id: Annotated[str, Field(min_length=1, max_length=250)]


@app.get("/serving", response_class=HTMLResponse)
def serving(_: MayReadRuns) -> Response:
    """What serves now, per product."""
    env = Environment.load()
    standings = [_standing(env, name) for name in list_products(env.products)]
    return HTMLResponse(standings_page(standings, base=f"{PREFIX}/rollouts"), headers=PAGE_HEADERS)


@app.post("/rollouts/{dag_id}/orders")
def order(dag_id: str, body: Annotated[OrderForm, Form()], request: Request, user: GetUserDep, _: MayRun) -> Response:
    """A person orders the rollout under way; back to the page, which shows that it was taken."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(HTTP_403_FORBIDDEN, "orders are taken from Airflow's own pages only")
    env = Environment.load()
    product = dag_id.removesuffix("_release")
    if product not in list_products(env.products):
        raise HTTPException(HTTP_404_NOT_FOUND, f"no product {product!r}")
    given = Order(kind=body.kind, by=user.get_name(), reason=body.reason, at_s=SystemClock().now_s())
    try:
        give_order(open_release_store(env), product, given, release_id=body.release_id)
    except ClearwayError as error:
        raise HTTPException(HTTP_409_CONFLICT, str(error)) from error
    return RedirectResponse(f"{PREFIX}/serving", status_code=HTTP_303_SEE_OTHER)


@app.get("/runs/{dag_id}/{run_id}", response_class=HTMLResponse)
def run(dag_id: str, run_id: str, session: SessionDep, _: MayReadRuns) -> Response:
    """A run's stages."""
    found = _outputs(session, dag_id, run_id)
    stages = [(stage, found[stage]) for stage in _ORDER if stage in found]
    base = f"{PREFIX}/runs/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    return HTMLResponse(run_page(f"{dag_id}: {run_id}", stages, base=base), headers=PAGE_HEADERS)


@app.get("/runs/{dag_id}/{run_id}/{task_id}/{file}")
def report(dag_id: str, run_id: str, task_id: str, file: str, session: SessionDep, _: MayReadRuns) -> Response:
    """A file beside the report that a stage of this very run made."""
    uri = str(_outputs(session, dag_id, run_id).get(task_id, {}).get("report_uri") or "")
    suffix = file[file.rfind(".") :]
    try:
        if not uri or suffix not in _TYPES:
            raise FileNotFoundError(file)
        data = open_storage(uri).read(join(uri.rpartition("/")[0], file))
    except (FileNotFoundError, ClearwayError) as error:
        raise HTTPException(HTTP_404_NOT_FOUND, f"stage {task_id!r} of this run made no {file!r}") from error
    return Response(data, media_type=_TYPES[suffix], headers=REPORT_HEADERS)


def _outputs(session: Any, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    query = XComModel.get_many(run_id=run_id, dag_ids=dag_id, key="return_value")
    values = {row.task_id: XComModel.deserialize_value(row) for row in session.scalars(query)}
    return {task: value for task, value in values.items() if isinstance(value, dict) and "verdict" in value}


def _standing(env: Environment, name: str) -> Standing:
    document, _ = open_release_store(env).read(name)
    try:
        weights = open_endpoint(env).state().weights_pct
    except Unavailable:
        weights = None
    return Standing(title=find_product(env.products, name).spec.title, document=document, weights_pct=weights)
