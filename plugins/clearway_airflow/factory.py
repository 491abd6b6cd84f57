"""The DAGs of every product, drawn from its card. Wiring only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import (
    DAG,
    AssetOrTimeSchedule,
    CronDataIntervalTimetable,
    Param,
    chain,
    get_parsing_context,
)
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.definitions.timetables.simple import NullTimetable

from clearway_airflow import assets, told
from clearway_airflow.cards import Card, products_folder, read_cards
from clearway_airflow.operators.announce import AnnounceOperator, landed_batch, new_champion, retraining_decision
from clearway_airflow.operators.approve import ApproveOperator
from clearway_airflow.operators.ingest import IngestOperator
from clearway_airflow.operators.reconcile import ReconcileOperator
from clearway_airflow.operators.revert import RevertOperator
from clearway_airflow.operators.stages import (
    DeployOperator,
    EvaluateOperator,
    MonitorOperator,
    PreprocessOperator,
    ServeOperator,
    TrainOperator,
    TuneOperator,
    ValidateOperator,
    YardsticksOperator,
)
from clearway_airflow.texts import INGEST, MONITOR, RECONCILE, RELEASE, ROLLBACK

# Often enough that a lost event costs minutes, seldom enough that the check itself costs nothing to speak of.
RECONCILE_CRON = "*/5 * * * *"
RECONCILE_DAG = "clearway_reconcile"


def build_dags(folder: Path | None = None) -> dict[str, DAG]:
    """Every product's DAGs, by id. A task's process, which needs one DAG, builds only that one."""
    cards = read_cards(folder or products_folder())
    makers = {f"{card.name}_{kind}": (make, card) for card in cards for kind, make in MAKERS.items()}
    wanted = get_parsing_context().dag_id
    dags = {i: make(card) for i, (make, card) in makers.items() if wanted in {None, i}}
    if cards and wanted in {None, RECONCILE_DAG}:
        dags[RECONCILE_DAG] = reconcile_dag(cards)
    return dags


def ingest_dag(card: Card) -> DAG:
    """Land one batch per data interval."""
    schedule = CronDataIntervalTimetable(card.cron, timezone="UTC")
    params = {"batch_id": _batch_param()}
    with _dag(card, "ingest", INGEST, schedule=schedule, params=params, end_date=card.last) as dag:
        landed = IngestOperator(product=card.name, chain="landing")
        chain(landed, _announce("batches", "ingest", assets.batches(card.name), landed_batch))
    return dag


def release_dag(card: Card) -> DAG:
    """Raw data to live traffic."""
    events = assets.retrain(card.name) | assets.arrivals(card.name)
    schedule: Any = events
    if card.schedule:
        schedule = AssetOrTimeSchedule(
            timetable=CronDataIntervalTimetable(card.schedule, timezone="UTC"), assets=events
        )
    with _dag(card, "release", RELEASE, schedule=schedule, params=_release_params()) as dag:

        def stage(operator: Callable[..., Any], **more: Any) -> Any:
            return operator(product=card.name, chain="release", **more)

        validated, evaluated = stage(ValidateOperator), stage(EvaluateOperator)
        chain(
            stage(IngestOperator),
            stage(PreprocessOperator),
            validated,
            stage(TuneOperator, want=card.want),
            stage(TrainOperator, want=card.want),
            evaluated,
            ApproveOperator(product=card.name),
            stage(DeployOperator),
            _announce("champion", "deploy", assets.champion(card.name), new_champion),
        )
        chain(validated, stage(YardsticksOperator), evaluated)  # while a candidate is trained
    return dag


def monitor_dag(card: Card) -> DAG:
    """Score a landed batch through the endpoint, look for drift, decide about retraining."""
    schedule = assets.batches(card.name)
    with _dag(card, "monitor", MONITOR, schedule=schedule, params={"batch_id": _batch_param()}) as dag:
        operators = (PreprocessOperator, ServeOperator, MonitorOperator)
        chain(
            IngestOperator(product=card.name, chain="batch", outlets=[assets.merged_batches(card.name)]),
            *[operator(product=card.name, chain="batch") for operator in operators],
            _announce("retrain", "monitor", assets.retrain(card.name), retraining_decision),
        )
    return dag


def rollback_dag(card: Card) -> DAG:
    """The previous champion serves again."""
    reason = Param(
        "rolled back by hand",
        type="string",
        minLength=1,
        maxLength=500,
        title="Why",
        description="Kept in the history.",
    )
    # The same as None, for which Airflow loads every kind of timetable that a schedule may stand for: 2 ms.
    with _dag(card, "rollback", ROLLBACK, schedule=NullTimetable(), params={"reason": reason}) as dag:
        chain(
            RevertOperator(product=card.name, chain="rollback"),
            _announce("champion", "revert", assets.champion(card.name), new_champion),
        )
    return dag


def reconcile_dag(cards: list[Card]) -> DAG:
    """Find what was lost, per product."""
    with DAG(
        RECONCILE_DAG,
        doc_md=RECONCILE,
        schedule=CronDataIntervalTimetable(RECONCILE_CRON, timezone="UTC"),
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["clearway"],
        default_args={"owner": "clearway"},
    ) as dag:
        for card in cards:
            ReconcileOperator(task_id=f"reconcile_{card.name}", product=card.name)
    return dag


MAKERS: dict[str, Callable[[Card], DAG]] = {
    "ingest": ingest_dag,
    "release": release_dag,
    "rollback": rollback_dag,
    "monitor": monitor_dag,
}


@contextmanager
def _dag(
    card: Card, kind: str, text: str, *, schedule: Any, params: dict[str, Param], end_date: datetime | None = None
) -> Iterator[DAG]:
    dag = DAG(
        f"{card.name}_{kind}",
        dag_display_name=f"{card.title}: {kind}",
        description=card.description,
        doc_md=text.format(title=card.title, name=card.name, owner=card.owner, tier=card.risk_tier, every=card.every),
        schedule=schedule,
        start_date=card.first,
        end_date=end_date,
        catchup=False,
        # Batches land and are looked at in order; releases of one product wait for each other. The lease in the release
        # document is what makes it safe, this only makes it tidy.
        max_active_runs=1,
        tags=["clearway", card.name, kind],
        default_args={"owner": card.owner, "on_failure_callback": told.failure},
    )
    with dag:
        yield dag
    # Last, since every operator copies the parameters that its DAG has when it is made, at each level of its class. And
    # added, not set: setting checks each schema against JSON Schema's own, 3 ms that every task would pay.
    dag.params.update(ParamsDict(params))


def _announce(task_id: str, stage: str, asset: Any, payload: Any) -> AnnounceOperator:
    return AnnounceOperator(task_id=task_id, stage=stage, asset=asset, payload=payload)


def _batch_param() -> Param:
    return Param(
        "",
        type="string",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        title="Batch",
        description="Start of the batch, YYYY-MM-DD; needed only for a run started by hand.",
    )


def _release_params() -> dict[str, Param]:
    return {
        "as_of": Param(
            "",
            type="string",
            pattern=r"^(\d{4}-\d{2}-\d{2}([T ][0-9:.]+(Z|[+-]\d{2}:\d{2})?)?)?$",
            title="As of",
            description="Use what was known at this moment (YYYY-MM-DD, UTC). Empty: everything that has landed.",
        ),
        "approval": Param(
            "default",
            type="string",
            enum=["default", "person", "auto"],
            title="Approval",
            description="`person` asks somebody even where the risk tier does not; `auto` cannot lift the risk tier.",
        ),
        "reason": Param(
            "",
            type="string",
            maxLength=500,
            title="Reason",
            description="Kept with the release and shown to approvers.",
        ),
    }
