"""Routes of the pages. Each demands the right to read the DAG it speaks of; no address comes from the browser."""

from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XComModel
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, Response
from starlette.status import HTTP_404_NOT_FOUND

from clearway.contracts.errors import ClearwayError, Unavailable
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import join, open_storage
from clearway.product_yaml import find_product, list_products
from clearway_airflow.ui.pages import Standing, run_page, standings_page

PREFIX = "/clearway"
# A report is made from data, so it may carry scripts of others: in its own origin it can draw, but not act as the user.
REPORT_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "nosniff"}
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
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
MayReadRuns = Annotated[None, Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))]


@app.get("/serving", response_class=HTMLResponse)
def serving(_: MayReadRuns) -> Response:
    """What serves now, per product."""
    env = Environment.load()
    standings = [_standing(env, name) for name in list_products(env.products)]
    return HTMLResponse(standings_page(standings), headers=PAGE_HEADERS)


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
