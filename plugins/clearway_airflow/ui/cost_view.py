"""What releases cost, as HTML. Pure; every value is escaped."""

from collections.abc import Sequence
from html import escape

from clearway.infra.cost.prices import Prices
from clearway.infra.cost.report import HEADS, RunCost, StageCost, saved_by_spot
from clearway_airflow.ui.pieces import code, page, table, time


def costs_page(
    title: str, runs: Sequence[RunCost], *, prices: Prices, budget: float, advice: Sequence[str], past: str
) -> str:
    """The newest releases of a product, stage by stage.

    Args:
        budget: of one release; 0 for none.
        past: address of the product's releases.
    """
    limit = f" A release may cost {budget:g}." if budget else " Releases have no budget (resources.max_money)."
    facts = f"In {prices.currency}, by prices of {prices.region} as of {prices.as_of.isoformat()}.{limit}"
    body = f'<p class="quiet">{escape(facts)}</p>'
    body += "".join(f"<p>{escape(text)}.</p>" for text in advice)
    body += "".join(_run(run) for run in runs) or "<p>Nothing was billed yet.</p>"
    link = f'<p><a href="{escape(past)}">All releases of {escape(title)}</a></p>'
    return page(f"What releases of {title} cost", body + link)


def money(cost: float | None) -> str:
    """An amount, or that the table lacks a price."""
    return '<span class="error">no price</span>' if cost is None else f"{cost:.4f}"


def _run(run: RunCost) -> str:
    rows = [_stage(stage) for stage in run.stages]
    rows.append(["<b>all</b>", "", "", "", money(run.cost), saved_by_spot(run), money(run.estimate), "", ""])
    waiting = f'<p class="quiet">Not billed yet: {escape(", ".join(run.unbilled))}</p>' if run.unbilled else ""
    head = f"<h3>{code(run.begun.release_id)}, begun {time(run.begun.at_s)}</h3>"
    return head + table([*HEADS, ""], rows) + waiting


def _stage(stage: StageCost) -> list[str]:
    expected = ""
    if stage.estimate is not None:
        expected = f'{money(stage.estimate.cost)} <span class="quiet">({stage.estimate.by})</span>'
    return [
        code(stage.stage),
        escape(stage.service),
        str(stage.num_attempts),
        f"{stage.billed_s:,.0f}",
        money(stage.cost),
        saved_by_spot(stage),
        expected,
        escape(stage.prices),
        escape(stage.note),
    ]
