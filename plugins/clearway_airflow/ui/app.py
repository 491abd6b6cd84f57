"""Routes of the pages. Each demands the right to read the DAG it speaks of; no address comes from the browser."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.xcom import XComModel
from fastapi import Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.status import HTTP_303_SEE_OTHER, HTTP_403_FORBIDDEN, HTTP_404_NOT_FOUND, HTTP_409_CONFLICT

from clearway.contracts.errors import ClearwayError, ConfigError, Unavailable
from clearway.contracts.rollout import Order, OrderKind
from clearway.deploy.history import past_names, read_endings, read_rollout, release_of
from clearway.deploy.orders import give_order
from clearway.infra.clock import SystemClock
from clearway.infra.cost.ledger import Ledger
from clearway.infra.cost.report import newest_costs, sizing
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.layout import STORY, Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import join, open_storage
from clearway.product_yaml import find_product, list_products
from clearway_airflow.cards import read_card
from clearway_airflow.ui.cost_view import costs_page
from clearway_airflow.ui.looking_again import POLICY
from clearway_airflow.ui.pages import RELEASE_DAG, Standing, run_page, standings_page
from clearway_airflow.ui.past_view import release_page, releases_page

PREFIX = "/clearway"
# A report is made from data, so it may carry scripts of others: in its own origin it can draw, but not act as the user.
REPORT_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "nosniff"}
PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; {POLICY}",
    "Cache-Control": "no-store",
}
PRODUCTS_PER_PAGE = 20
RELEASES_PER_PAGE = 20
STATE_TIMEOUT_S = 2.0  # a page says that the endpoint is silent rather than waiting for it
_TYPES = {".html": "text/html", ".json": "application/json"}
_ORDER = (
    "ingest",
    "preprocess",
    "validate",
    "tune",
    "train",
    "yardsticks",
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
    confirmed: Literal["yes"]


@app.get("/serving", response_class=HTMLResponse)
def serving(_: MayReadRuns, page: Annotated[int, Query(ge=1, le=10_000)] = 1) -> Response:
    """What serves now, per product."""
    env = Environment.load()
    store, titles = open_release_store(env), _titles(env)
    names = sorted(titles)[(page - 1) * PRODUCTS_PER_PAGE :]
    shown = names[:PRODUCTS_PER_PAGE]
    with ThreadPoolExecutor(max_workers=PRODUCTS_PER_PAGE) as pool:
        weights = pool.map(partial(_weights, env), shown)
        documents = [store.read(name)[0] for name in shown]
        standings = [
            Standing(title=titles[name], document=document, weights_pct=weights_pct)
            for name, document, weights_pct in zip(shown, documents, weights, strict=True)
        ]
    next_page = f"{PREFIX}/serving?page={page + 1}" if len(names) > len(shown) else ""
    html = standings_page(standings, base=f"{PREFIX}/rollouts", past=f"{PREFIX}/releases", next_page=next_page)
    return HTMLResponse(html, headers=PAGE_HEADERS)


@app.get("/releases/{dag_id}", response_class=HTMLResponse)
def releases(dag_id: str, _: MayReadRuns, page: Annotated[int, Query(ge=1, le=10_000)] = 1) -> Response:
    """All releases of a product, page by page."""
    env, product = Environment.load(), _product_of(dag_id)
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product)
    document, _version = open_release_store(env).read(product)
    names = past_names(storage, layout, document)
    first = (page - 1) * RELEASES_PER_PAGE
    entries = read_endings(storage, layout, document, names[first : first + RELEASES_PER_PAGE])
    html = releases_page(
        _titles(env)[product],
        entries,
        past=f"{PREFIX}/releases/{dag_id}",
        number=page,
        num_pages=max(1, -(-len(names) // RELEASES_PER_PAGE)),
        num_all=len(names),
        story=f"{PREFIX}/stories/{dag_id}" if storage.exists(layout.backtest(STORY)) else "",
        costs=f"{PREFIX}/costs/{dag_id}",
    )
    return HTMLResponse(html, headers=PAGE_HEADERS)


@app.get("/releases/{dag_id}/{release_id}", response_class=HTMLResponse)
def release(dag_id: str, release_id: str, _: MayReadRuns) -> Response:
    """One of them, with what it was judged by."""
    env, product = Environment.load(), _product_of(dag_id)
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product)
    document, _version = open_release_store(env).read(product)
    # Only a release that is on record is looked up: no address is made from what the browser sent.
    name = next((n for n in past_names(storage, layout, document) if release_of(n) == release_id), None)
    if name is None:
        raise HTTPException(HTTP_404_NOT_FOUND, f"no release {release_id!r} of {product!r} has ended")
    (entry,) = read_endings(storage, layout, document, [name])
    rollout = read_rollout(storage, layout, release_of(name))
    html = release_page(_titles(env)[product], entry, rollout, past=f"{PREFIX}/releases/{dag_id}")
    return HTMLResponse(html, headers=PAGE_HEADERS)


@app.get("/costs/{dag_id}", response_class=HTMLResponse)
def costs(dag_id: str, _: MayReadRuns) -> Response:
    """What the newest releases of a product cost; of bills that are written, nobody is asked."""
    env, product = Environment.load(), _product_of(dag_id)
    ledger = Ledger(env, product)
    runs = newest_costs(ledger, now_s=SystemClock().now_s(), limit=RELEASES_PER_PAGE)
    bills = [bill for run in runs for bill in run.bills]
    html = costs_page(
        _titles(env)[product],
        runs,
        prices=ledger.prices,
        budget=find_product(env.products, product).spec.resources.max_money,
        advice=sizing(bills, prices=ledger.prices, env=env),
        past=f"{PREFIX}/releases/{dag_id}",
    )
    return HTMLResponse(html, headers=PAGE_HEADERS)


@app.get("/stories/{dag_id}")
def story(dag_id: str, _: MayReadRuns) -> Response:
    """What retraining policies would have done with the product's past, where somebody asked (`replay --policy`)."""
    env, product = Environment.load(), _product_of(dag_id)
    try:
        data = open_storage(env.store_root).read(Layout(env.store_root, product).backtest(STORY))
    except FileNotFoundError as error:
        raise HTTPException(HTTP_404_NOT_FOUND, f"no policies of {product!r} were replayed yet") from error
    return Response(data, media_type=_TYPES[".html"], headers=REPORT_HEADERS)


@app.post("/rollouts/{dag_id}/orders")
def order(dag_id: str, body: Annotated[OrderForm, Form()], request: Request, user: GetUserDep, _: MayRun) -> Response:
    """A person orders the rollout under way; back to the page, which shows that it was taken."""
    if not is_from_own_page(request.headers):
        raise HTTPException(HTTP_403_FORBIDDEN, "orders are taken from Airflow's own pages only")
    env, product = Environment.load(), _product_of(dag_id)
    given = Order(kind=body.kind, by=user.get_name(), reason=body.reason, at_s=SystemClock().now_s())
    try:
        give_order(open_release_store(env), product, given, release_id=body.release_id)
    except ClearwayError as error:
        raise HTTPException(HTTP_409_CONFLICT, str(error)) from error
    return RedirectResponse(f"{PREFIX}/serving", status_code=HTTP_303_SEE_OTHER)


def is_from_own_page(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that a page of this very host sent the form; a request that does not say is refused.

    Browsers leave Sec-Fetch-Site out on plain HTTP; Origin they send with every form.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return False
    is_same_host = origin is None or urlsplit(origin).netloc == headers.get("host")
    return site in {None, "same-origin"} and is_same_host


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


def _product_of(dag_id: str) -> str:
    """The right was asked for this very DAG, so no other DAG's name may stand for the product."""
    product = dag_id.removesuffix(RELEASE_DAG)
    if not dag_id.endswith(RELEASE_DAG) or product not in list_products(Environment.load().products):
        raise HTTPException(HTTP_404_NOT_FOUND, f"no release DAG {dag_id!r}; allowed: <product>{RELEASE_DAG}")
    return product


def _weights(env: Environment, product: str) -> Mapping[str, float] | None:
    """None where its endpoint does not answer, and where another product's does."""
    endpoint = env.endpoint.model_copy(update={"timeout_s": min(env.endpoint.timeout_s, STATE_TIMEOUT_S)})
    try:
        return open_endpoint(env.model_copy(update={"endpoint": endpoint}), product=product).state().weights_pct
    except (Unavailable, ConfigError):
        return None


def _titles(env: Environment) -> dict[str, str]:
    """Product → title."""
    return _read_titles(tuple((path, path.stat().st_mtime_ns) for path in sorted(env.products.glob("*/product.yaml"))))


@lru_cache(maxsize=4)
def _read_titles(files: tuple[tuple[Path, int], ...]) -> dict[str, str]:
    """Reading fifty of them costs more than the rest of the page."""
    titles = {}
    for path, _ in files:
        name = path.parent.name
        try:
            titles[name] = read_card(path).title
        except ValueError as error:
            titles[name] = f"{name} ({error})"
    return titles
